// Sorting, finding and choosing; a trial lights up wherever it is drawn. Without this the page is complete, only still.
const view = { find: "", kind: "", chosen: new Map(), sorted: null }; // what the reader chose outlives new content
function animate() {
  const table = document.querySelector("table.trials");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const [find, kind] = [document.querySelector(".filter input"), document.querySelector(".filter select")];
  const count = document.querySelector(".filter output");
  const marks = new Map();
  for (const mark of document.querySelectorAll("svg [data-trial]")) {
    const trial = mark.dataset.trial;
    if (!marks.has(trial)) marks.set(trial, []);
    marks.get(trial).push(mark);
  }
  const values = [...document.querySelectorAll(".parallel .value")];
  const chosen = view.chosen; // parameter -> values
  [find.value, kind.value] = [view.find, view.kind];

  function filter() {
    [view.find, view.kind] = [find.value, kind.value];
    const words = find.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const pairs = JSON.parse(row.dataset.words.toLowerCase());
      const all = `${row.textContent} ${pairs.join(" ")}`.toLowerCase();
      const fits = (!kind.value || row.dataset.kind === kind.value)
        && words.every((word) => (word.includes("=") ? pairs.includes(word) : all.includes(word)))
        && [...chosen].every(([name, some]) => [...some].some((value) => pairs.includes(`${name}=${value}`.toLowerCase())));
      row.hidden = !fits;
      shown += fits;
      for (const mark of marks.get(row.dataset.trial) ?? []) mark.classList.toggle("faded", !fits);
    }
    count.textContent = `${shown} of ${rows.length}`;
  }

  function sort(head, down) {
    const column = head.cellIndex;
    view.sorted = [column, down];
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v === undefined ? cell.textContent : cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
    };
    const keyed = rows.map((row) => [key(row), row]);
    keyed.sort(([a], [b]) => {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // what is not known comes last
      return (typeof a === "string" ? a.localeCompare(b) : a - b) * (down ? -1 : 1);
    });
    body.append(...keyed.map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  function light(trial, on) {
    for (const mark of marks.get(trial) ?? []) mark.classList.toggle("lit", on);
    rows.find((row) => row.dataset.trial === trial)?.classList.toggle("lit", on);
  }

  function choose(label) {
    const name = label.dataset.parameter, some = chosen.get(name) ?? new Set(), value = label.dataset.value;
    if (!some.delete(value)) some.add(value);
    if (some.size) chosen.set(name, some); else chosen.delete(name);
    label.setAttribute("aria-pressed", some.has(value));
    filter();
  }

  for (const label of values) {
    label.setAttribute("role", "button");
    label.setAttribute("tabindex", "0");
    label.setAttribute("aria-pressed", chosen.get(label.dataset.parameter)?.has(label.dataset.value) ?? false);
    label.addEventListener("click", () => choose(label));
    label.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(label); }
    });
  }
  const heads = table.tHead.rows[0].cells;
  for (const head of heads) {
    head.firstChild.addEventListener("click", () => sort(head, head.getAttribute("aria-sort") === "ascending"));
  }
  if (view.sorted) sort(heads[view.sorted[0]], view.sorted[1]);
  find.addEventListener("input", filter);
  kind.addEventListener("change", filter);
  document.querySelector(".filter .reset").addEventListener("click", () => {
    find.value = kind.value = "";
    chosen.clear();
    for (const label of values) label.setAttribute("aria-pressed", "false");
    for (const row of body.querySelectorAll(".lit")) light(row.dataset.trial, false);
    filter();
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) light(row.dataset.trial, !row.classList.contains("lit"));
  });
  for (const figure of document.querySelectorAll("svg")) {
    figure.addEventListener("mouseover", (event) => event.target.dataset.trial && light(event.target.dataset.trial, true));
    figure.addEventListener("mouseout", (event) => event.target.dataset.trial && light(event.target.dataset.trial, false));
  }
  filter();
}
animate();
window.addEventListener("renewed", animate); // the dashboard has put new content in place
