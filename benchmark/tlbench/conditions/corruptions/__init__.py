"""Common corruptions of images (Hendrycks and Dietterich, 2019), at five severities and for three image sides."""
