"""The arrays of the domains ``printed`` and ``stroke``, and the script that makes them."""
