"use strict";
// The board without a script is a plain table of the opening measure. This sorts it, filters it, and shows the stored
// numbers of another measure or of one task; it computes none. Names are set as text and never as markup.
(() => {
  const data = JSON.parse(document.getElementById("board-data").textContent);
  const table = document.getElementById("board");
  const bodies = [...table.tBodies];
  const headings = bodies.map((body) => body.rows[0]);
  const lines = [];
  for (const line of table.querySelectorAll("tr[data-row]")) lines[Number(line.dataset.row)] = line;
  const count = data.rows.length;
  const everybody = Array.from({ length: count }, (_, row) => row);
  const at = (id) => document.getElementById(id);
  const buttons = [...table.querySelectorAll("thead button")];
  const compared = at("comparisons");
  const boxes = [...document.querySelectorAll("input.family")];
  const choices = { m: at("measure"), t: at("task"), p: at("protocol"), b: at("backbone"), l: at("level"), q: at("search") };
  const INCOMPLETE = data.groups.length - 1;
  const CONTROL = INCOMPLETE - 1;
  const VARIANT = INCOMPLETE - 2;
  const ABSENT = "–";
  const WORDLESS = new Set(["rank", "ranks", "interval", "text", "mark"]);
  const found = data.rows.map((row) => `${row.full || row.name} ${row.backbone} ${row.mark}`.toLowerCase());
  let sorted = null; // { column, descending }, null for the board's own order
  let shown = null; // what the cells say now

  // Numbers -------------------------------------------------------------------------------------------------------
  const grouped = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  const written = (value, unit) => {
    if (value === null || value === undefined) return ABSENT;
    if (value === "inf") return "∞";
    if (value === "-inf") return "−∞";
    let text;
    if (unit === "fraction") text = (100 * value).toFixed(1);
    else if (unit === "epsilon") text = `${(value * 255).toFixed(2)}/255`;
    else if (unit === "seconds" || unit === "count") text = value < 100 ? value.toFixed(1) : grouped(value.toFixed(0));
    else if (unit === "bytes") text = `${(value / 1e6).toFixed(1)} MB`;
    else text = value.toFixed(3);
    if (!text.startsWith("-")) return text;
    return /[1-9]/.test(text) ? `−${text.slice(1)}` : text.slice(1);
  };
  const numeric = (value) => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : value === true ? 1 : value === false ? 0 : value);

  // A view: which stored lists the cells show ---------------------------------------------------------------------
  const viewOf = () => {
    const metric = data.metrics.find((candidate) => candidate.key === choices.m.value) || data.metrics[0];
    const task = choices.t && choices.t.value ? data.tasks.find((candidate) => candidate.name === choices.t.value) : null;
    if (!task) {
      return { metric, task, list: (end) => metric.values[end] || data.metrics[0].values[end] || null, low: metric.low, high: metric.high, reason: metric.reason };
    }
    const own = task.values[metric.key] || {};
    const ofScore = new Set(["score", "standard_error", "seeds_sd"]);
    const list = (end) => (ofScore.has(end) ? own[end] : (task.values[end] || {}).score) || null;
    return { metric, task, list, low: own.low, high: own.high, reason: own.reason };
  };
  const scored = (view, row) => { const score = view.list("score"); return Boolean(score) && score[row] !== null; };
  const groupOf = (view, row) => {
    if (!scored(view, row)) return INCOMPLETE;
    if (view.metric.control[row]) return CONTROL;
    return data.rows[row].variant ? VARIANT : data.rows[row].section;
  };
  const textOf = (view, column, row) => {
    if (column.key in data.rows[row]) return data.rows[row][column.key];
    const unit = column.unit || view.metric.unit;
    const values = column.ends.map((end) => { const list = view.list(end); return list ? list[row] : null; });
    if (column.key === "score" && values[0] === null) {
      const low = view.low ? view.low[row] : null;
      return low === null ? ABSENT : `${written(low, unit)} – ${written(view.high[row], unit)}`;
    }
    if (values.includes(null)) return WORDLESS.has(unit) ? "" : ABSENT;
    if (unit === "ranks") return values[0] === values[1] ? String(values[0]) : `${values[0]} – ${values[1]}`;
    if (unit === "interval") return values.map((value) => written(value, view.metric.unit)).join(" – ");
    if (unit === "mark") return values[0] ? "yes" : "";
    return WORDLESS.has(unit) ? String(values[0]) : written(values[0], unit);
  };
  const keyOf = (view, column, row) => {
    if (column.key in data.rows[row]) return data.rows[row][column.key].toLowerCase();
    const list = view.list(column.ends[0]);
    const value = list ? list[row] : null;
    if (value !== null) return numeric(value);
    // Rows without a score go by their worst case.
    return column.key === "score" && view.low && view.low[row] !== null ? view.low[row] : null;
  };

  // Drawing -------------------------------------------------------------------------------------------------------
  const scaleOf = (view) => {
    let low = Infinity;
    let high = -Infinity;
    for (const end of ["score", "measurement_low", "measurement_high", "generalisation_low", "generalisation_high"]) {
      (view.list(end) || []).forEach((value, row) => {
        if (typeof value !== "number" || view.metric.control[row]) return;
        low = Math.min(low, value);
        high = Math.max(high, value);
      });
    }
    if (low > high) return [0, 1];
    return low < high ? [low, high] : [low - 0.5, high + 0.5];
  };
  const setBar = (bar, view, row, [low, high]) => {
    const place = (end) => {
      const list = view.list(end);
      const value = list ? list[row] : null;
      return typeof value === "number" ? (100 * (value - low)) / (high - low) : null;
    };
    const middle = place("score");
    bar.hidden = middle === null || middle < 0 || middle > 100;
    let style = bar.hidden ? "" : `--d:${middle.toFixed(1)}%`;
    for (const [name, of] of [["w", "generalisation"], ["n", "measurement"]]) {
      const left = place(`${of}_low`);
      const right = place(`${of}_high`);
      if (bar.hidden || left === null || right === null) continue;
      const start = Math.max(left, 0);
      style += `;--${name}:${start.toFixed(1)}%;--${name}w:${(Math.min(right, 100) - start).toFixed(1)}%`;
    }
    bar.style.cssText = style;
  };
  const draw = (view) => {
    const scale = scaleOf(view);
    for (const row of everybody) {
      const cells = lines[row].cells;
      data.columns.forEach((column, place) => {
        if (column.key === "name") cells[place].querySelector("small").textContent = view.reason ? view.reason[row] : "";
        else if (column.key === "score") {
          cells[place].firstElementChild.textContent = textOf(view, column, row);
          setBar(cells[place].lastElementChild, view, row, scale);
        } else if (!(column.key in data.rows[row])) cells[place].textContent = textOf(view, column, row);
      });
    }
    at("words").textContent = view.metric.words + (view.task ? `, ${view.task.name} alone` : "");
    at("about").textContent = `${view.metric.about}.`;
    const score = data.columns.findIndex((column) => column.key === "score");
    if (score >= 0) buttons[score].textContent = view.metric.words;
    const notes = [...(view.metric.pairs_only ? ["For these pairs only: with so few tasks, nothing is said of other ones."] : []), ...view.metric.notes];
    at("notes").replaceChildren(...notes.map((text) => {
      const item = document.createElement("li");
      item.className = "note";
      item.textContent = text;
      return item;
    }));
    if (compared) {
      compared.hidden = Boolean(view.task);
      for (const part of compared.querySelectorAll("[data-metric]")) part.hidden = part.dataset.metric !== view.metric.key;
    }
    at("view-note").hidden = !view.task;
    at("view-note").textContent = view.task
      ? `Every number here is of task ${view.task.name} alone. Ranks, tie groups and intervals are made over the whole suite and are not shown.` : "";
  };
  const setColumns = (view) => {
    const off = boxes.filter((box) => !box.checked).map((box) => box.value);
    const gone = (column) => off.includes(column.family) || (column.key === view.metric.same && !view.task);
    const kept = data.columns.filter((column) => !gone(column));
    const widths = kept.map((column) => (column.key === "name" ? "var(--name)" : `${column.width}em`));
    const hidden = data.columns.map((column, place) => (gone(column) ? `.c${place}` : "")).filter(Boolean);
    const layout = `table.board { --columns: ${widths.join(" ")}; --total: calc(${widths.join(" + ")}); }`
      + (hidden.length ? ` ${hidden.map((name) => `table.board ${name}`).join(", ")} { display: none !important; }` : "");
    if (at("layout").textContent === layout) return; // every row would be styled anew
    at("layout").textContent = layout;
    for (const heading of table.querySelectorAll("thead .families th")) {
      const span = kept.filter((column) => column.family === heading.dataset.family).length;
      heading.hidden = span === 0;
      heading.colSpan = Math.max(1, span);
      heading.style.setProperty("--span", span);
    }
    for (const heading of headings) heading.cells[0].colSpan = kept.length;
  };

  // Order and filters ---------------------------------------------------------------------------------------------
  const arrange = (view) => {
    const query = at("search").value.trim().toLowerCase();
    const words = query ? query.split(/\s+/) : [];
    const kept = everybody.filter((row) => {
      const line = data.rows[row];
      return (!choices.p.value || line.protocol === choices.p.value) && (!choices.b.value || line.backbone === choices.b.value)
        && (!choices.l.value || line.level === choices.l.value) && words.every((word) => found[row].includes(word));
    });
    const column = sorted ? data.columns[sorted.column] : data.columns.find((candidate) => candidate.key === "score");
    const keys = everybody.map((row) => keyOf(view, column, row));
    const higher = column.higher === null ? view.metric.higher : column.higher;
    const down = sorted ? sorted.descending : higher;
    // Collation is slow: names are compared by their letters' numbers, which is what the rows' own order does, too.
    // Their own order has those first that are ranked, as on every other board of ours; of one task there are no ranks.
    const ranks = sorted || view.task || !view.metric.ranks ? null : view.list("rank");
    const compare = (one, other) => {
      if (ranks && (ranks[one] === null) !== (ranks[other] === null)) return ranks[one] === null ? 1 : -1;
      const first = keys[one];
      const second = keys[other];
      if (first === second) return one - other;
      if (first === null || first === "") return 1; // what is not there stands last, either way
      if (second === null || second === "") return -1;
      return (first < second ? -1 : 1) * (down ? -1 : 1);
    };
    kept.sort(compare);
    const groups = bodies.map(() => []);
    for (const row of kept) groups[groupOf(view, row)].push(lines[row]);
    bodies.forEach((body, place) => {
      body.hidden = groups[place].length === 0;
      body.replaceChildren(headings[place], ...groups[place]);
    });
    data.columns.forEach((candidate, place) => {
      const heading = buttons[place].parentElement;
      if (sorted && sorted.column === place) heading.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
      else heading.removeAttribute("aria-sort");
    });
    const amount = kept.length === count ? `${count} row${count === 1 ? "" : "s"}` : `${kept.length} of ${count} rows; ranks are those among all`;
    const order = sorted ? `, sorted by ${buttons[sorted.column].textContent.replaceAll("\u00ad", "")}, ${sorted.descending ? "descending" : "ascending"}` : "";
    at("status").textContent = amount + order;
  };
  const update = () => {
    const view = viewOf();
    const name = `${view.metric.key}\n${view.task ? view.task.name : ""}`;
    if (shown !== name) {
      draw(view);
      shown = name;
    }
    setColumns(view);
    arrange(view);
    keep();
  };

  // The view as an address, so that it can be sent ----------------------------------------------------------------
  const keep = () => {
    const told = new URLSearchParams();
    for (const [name, control] of Object.entries(choices)) {
      if (control && control.value && !(name === "m" && control.value === data.metrics[0].key)) told.set(name, control.value);
    }
    if (sorted) told.set("s", `${data.columns[sorted.column].key}:${sorted.descending ? "down" : "up"}`);
    const off = boxes.filter((box) => !box.checked).map((box) => box.value);
    if (off.join() !== data.hidden.filter((family) => boxes.some((box) => box.value === family)).join()) told.set("c", off.join());
    try {
      const address = told.toString();
      if (address || location.hash.includes("=")) history.replaceState(null, "", address ? `#${address}` : location.pathname);
    } catch { /* a browser may forbid this to pages from disk */ }
  };
  const restore = () => {
    if (!location.hash.includes("=")) return;
    const told = new URLSearchParams(location.hash.slice(1));
    for (const [name, control] of Object.entries(choices)) {
      const value = told.get(name);
      if (!control || value === null) continue;
      if (name === "q" || [...control.options].some((option) => option.value === value)) control.value = value;
    }
    const [key, way] = (told.get("s") || "").split(":");
    const column = data.columns.findIndex((candidate) => candidate.key === key);
    if (column >= 0) sorted = { column, descending: way === "down" };
    if (told.has("c")) {
      const off = told.get("c").split(",");
      for (const box of boxes) box.checked = !off.includes(box.value);
    }
  };

  buttons.forEach((button, place) => button.addEventListener("click", () => {
    const column = data.columns[place];
    const text = column.key in (data.rows[0] || {});
    const first = text || column.unit === "text" ? false : column.higher === null ? viewOf().metric.higher : column.higher;
    if (!sorted || sorted.column !== place) sorted = { column: place, descending: first };
    else if (sorted.descending === first) sorted = { column: place, descending: !first };
    else sorted = null;
    update();
  }));
  for (const control of Object.values(choices)) {
    if (control) control.addEventListener(control.type === "search" ? "input" : "change", update);
  }
  for (const box of boxes) box.addEventListener("change", update);
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("clear").addEventListener("click", () => {
    at("controls").reset();
    sorted = null;
    update();
  });
  at("controls").hidden = false;
  shown = `${data.metrics[0].key}\n`;
  restore();
  update(); // a browser may have kept what was chosen before a reload
})();
