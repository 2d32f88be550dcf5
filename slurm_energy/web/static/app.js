// Asks for live watts every two seconds and for the ledger once a minute. Text from outside goes in as text nodes only.
import { area, bars, element, share, spark } from "./charts.js";

const LIVE_MS = 2000, LEDGER_MS = 60000, SPAN_S = 300, FIRST_JOBS = 12;
const DOMAINS = [["package", "CPU"], ["dram", "Memory"], ["gpu", "GPU"], ["other", "Other"]];
const KNOWN = [
  ["measured", "Measured", "counters of the node, read by the agent"],
  ["slurm", "Slurm", "ConsumedEnergyRaw of the job records"],
  ["estimated", "Estimated", "rated power times time"],
];
const QUANTITIES = {
  energy: ["Facility energy", (row) => row.facility_kwh, energy],
  co2e: ["CO2e", (row) => row.co2e_kg * 1000, mass],
  cost: ["Cost of the electricity", (row) => row.electricity_usd, usd],
  gpu: ["GPU time", (row) => row.gpu_hours, hours],
};
const $ = (id) => document.getElementById(id);
const past = new Map(); // node or job -> what it drew, oldest first
const opened = new Set(); // nodes of which all jobs are shown
let token = "", months = [], chosen = "", lastLive = null;

if (location.hash.startsWith("#token=")) {
  token = decodeURIComponent(location.hash.slice(7));
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname); // not to be seen over a shoulder, nor bookmarked
} else {
  token = sessionStorage.getItem("token") ?? "";
}

async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, signal: AbortSignal.timeout(20000) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || `HTTP ${answer.status}`);
  return found;
}

// Numbers as people read them, three significant digits.

function digits(value) {
  if (!value) return "0";
  const before = Math.floor(Math.log10(Math.abs(value))) + 1, after = Math.min(Math.max(3 - before, 0), 6);
  return value.toLocaleString("en", { minimumFractionDigits: before > 0 ? after : 0, maximumFractionDigits: after });
}
function scaled(value, units) {
  const [name, size] = units.find(([, one]) => Math.abs(value) >= one * 0.9995) ?? units.at(-1);
  return `${digits(value / size)} ${name}`;
}
function energy(kwh) { return scaled(kwh, [["GWh", 1e6], ["MWh", 1e3], ["kWh", 1]]); }
function small(kwh) { return scaled(kwh, [["MWh", 1e3], ["kWh", 1], ["Wh", 1e-3]]); }
function mass(grams) { return scaled(grams, [["t", 1e6], ["kg", 1e3], ["g", 1]]); }
function hours(value) { return `${digits(value)} h`; }
function money(value) { return value >= 99.995 ? Math.round(value).toLocaleString("en") : value >= 0.01 ? value.toFixed(2) : digits(value); }
function usd(value) { return `${money(value)} USD`; }
function range(row) { return `${money(row.cloud_low_usd)} – ${money(row.cloud_high_usd)}`; }
function watts(value) { return `${value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 })} W`; }
function percent(part) { return `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`; }
function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 259200 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}
/** A tick of an axis: no zeros after the point. */
function axis(format) { return (value) => format(value).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, ""); }

function notice(id, lines) {
  $(id).hidden = !lines.length;
  $(id).replaceChildren(...lines.map((line) => element("div", {}, line)));
}

function cell(label, text, kind = "n") {
  return element("td", { class: kind, "data-label": label }, text);
}

// Now.

function remember(key, point) {
  const points = past.get(key) ?? [];
  if (!points.length || point.t > points.at(-1).t) points.push(point);
  while (points.length && point.t - points[0].t > SPAN_S) points.shift();
  past.set(key, points);
  return points;
}

function showLive(live) {
  lastLive = live;
  const alive = new Set();
  for (const node of live.nodes) {
    const id = `${node.cluster}/${node.node}`;
    alive.add(id);
    remember(id, { t: node.at, values: DOMAINS.map(([name]) => node.domains[name]) });
    for (const job of node.jobs) {
      alive.add(`${id}/${job.id}/${job.run}`);
      remember(`${id}/${job.id}/${job.run}`, { t: node.at, w: job.watts });
    }
  }
  for (const key of past.keys()) if (!alive.has(key)) past.delete(key);
  notice("live-notice", live.errors.length && !live.nodes.length
    ? ["No agent answers here, so there are no live watts; the ledger is below.", ...live.errors] : live.errors);
  $("nodes").replaceChildren(...live.nodes.map(nodeCard));
  for (const [index, node] of live.nodes.entries()) drawNode(node, $("nodes").children[index]);
}

/** Seconds that the charts show: what there is, from one to five minutes. */
function span(points) {
  return Math.min(Math.max(points.at(-1).t - points[0].t, 60), SPAN_S);
}

function present(node) {
  return DOMAINS.filter(([name]) => past.get(`${node.cluster}/${node.node}`).some((p) => p.values[DOMAINS.findIndex(([n]) => n === name)] > 0));
}

function nodeCard(node) {
  const card = element("article", { class: "card", "aria-label": `Node ${node.node}` });
  const count = node.jobs.length === 1 ? "1 job" : `${node.jobs.length} jobs`;
  const facts = [node.cluster, count, `${watts(node.idle_watts)} idle`];
  if (node.gpus) facts.splice(1, 0, node.gpus === 1 ? "1 GPU" : `${node.gpus} GPUs`);
  if (node.estimated) facts.push("estimated by a model, not measured");
  card.append(element("div", { class: "node-head" },
    element("div", {}, element("h3", {}, node.node), element("p", { class: "quiet" }, facts.join(" · "))),
    element("div", { class: "watts" }, watts(node.watts))));
  for (const problem of node.problems) card.append(element("p", { class: "problem" }, problem));
  card.append(element("ul", { class: "legend" }, ...present(node).map(([name, title]) =>
    element("li", {}, element("i", { class: `key ${name}` }), element("span", {}, title), element("b", {}, watts(node.domains[name]))))));
  card.append(element("div", { class: "chart" }));
  if (node.jobs.length) card.append(...jobTable(node));
  return card;
}

function drawNode(node, card) {
  const shown = present(node), places = shown.map(([name]) => DOMAINS.findIndex(([n]) => n === name));
  const points = past.get(`${node.cluster}/${node.node}`).map(({ t, values }) => ({ t, values: places.map((at) => values[at]) }));
  const said = shown.map(([name, title]) => `${title} ${watts(node.domains[name])}`).join(", ");
  area(card.querySelector(".chart"), points, shown.map(([name]) => name), span(points),
    `Power over time; now ${watts(node.watts)}: ${said}`);
}

function jobTable(node) {
  const id = `${node.cluster}/${node.node}`, all = opened.has(id) || node.jobs.length <= FIRST_JOBS;
  const head = [["Job", ""], ["User", ""], ["Account", ""], ["Running", "n"], ["CPUs", "n"], ["GPUs", "n"], ["Energy", "n"], ["Power", "n"], ["Lately", "n"]];
  const body = element("tbody");
  for (const job of all ? node.jobs : node.jobs.slice(0, FIRST_JOBS)) {
    const trend = element("td", { class: "n wide", "data-label": "Lately" }, spark(past.get(`${id}/${job.id}/${job.run}`), span(past.get(id))));
    body.append(element("tr", {},
      element("th", { scope: "row" }, job.id + (job.discovered ? "*" : "")), cell("User", job.user || "?", ""), cell("Account", job.account || "?", ""),
      cell("Running", age(job.seconds)), cell("CPUs", String(job.cpus)), cell("GPUs", String(job.gpus)),
      cell("Energy", small(job.kwh)), cell("Power", watts(job.watts)), trend));
  }
  const table = element("table", { class: "stack jobs", "aria-label": `Jobs on ${node.node}` },
    element("thead", {}, element("tr", {}, ...head.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))), body);
  const found = [table];
  if (node.jobs.some((job) => job.discovered)) {
    found.push(element("p", { class: "quiet" }, "* found by its cgroup, without a hook: who it belongs to is known later"));
  }
  if (node.jobs.length > FIRST_JOBS) {
    const toggle = element("button", { type: "button", "aria-expanded": all, "data-toggle": id }, all ? "Fewer jobs" : `All ${node.jobs.length} jobs`);
    toggle.addEventListener("click", () => {
      if (!opened.delete(id)) opened.add(id);
      showLive(lastLive);
      [...document.querySelectorAll("[data-toggle]")].find((one) => one.dataset.toggle === id)?.focus();
    });
    found.push(toggle);
  }
  return found;
}

// Ledger.

function showMonths() {
  const [title, value, format] = QUANTITIES[$("quantity").value];
  const rows = months.map((row) => ({ key: row.month, value: value(row), text: format(value(row)) }));
  bars($("months"), rows, chosen, axis(format), `${title} by month`, (month) => choose(month));
}

function showProjects(found) {
  const { total } = found;
  chosen = found.month;
  const options = [...found.months.map((month) => [month, month + (month === found.this_month ? " (so far)" : "")]), ["all", "all months"]];
  if (document.activeElement !== $("month")) {
    $("month").replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    $("month").value = chosen;
  }
  $("month").disabled = false;
  const tiles = [
    ["Facility energy", energy(total.facility_kwh)], ["Emissions, CO2e", mass(total.co2e_kg * 1000)],
    ["Electricity", usd(total.electricity_usd)], ["Cloud price, USD", range(total)],
    ["GPU time", hours(total.gpu_hours)], ["Jobs", total.jobs.toLocaleString("en")],
  ];
  $("tiles").replaceChildren(...tiles.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));
  const parts = KNOWN.map(([name]) => [name, total.provenance[name] ?? 0]);
  share($("provenance"), parts, KNOWN.map(([, title], index) => `${title} ${percent(parts[index][1])}`).join(", "));
  $("provenance-legend").replaceChildren(...KNOWN.map(([name, title, what], index) => element("li", {},
    element("i", { class: `key ${name}` }),
    element("div", {}, element("b", {}, `${percent(parts[index][1])} `), element("span", {}, title), element("p", {}, what)))));
  const rows = found.rows.map((row) => projectRow(row.project || "(none)", row));
  if (found.folded) rows.push(projectRow(`${found.folded} others`, found.other));
  if (found.rows.length > 1) rows.push(projectRow("Together", total, "sum"));
  $("projects").tBodies[0].replaceChildren(...rows);
  $("projects-title").textContent = chosen === "all" ? "Projects, all months" : `Projects in ${chosen}`;
  const unpriced = total.unpriced_gpu_hours ? ` ${hours(total.unpriced_gpu_hours)} of GPU time have no cloud price.` : "";
  $("projects-note").textContent = `The ledger reaches to ${found.last_day}.${unpriced}`;
}

function projectRow(name, row, kind = "") {
  const bar = element("div", { class: "share" });
  share(bar, KNOWN.map(([one]) => [one, row.provenance[one] ?? 0]),
    KNOWN.filter(([one]) => row.provenance[one] > 0).map(([one, title]) => `${title} ${percent(row.provenance[one])}`).join(", "));
  const known = element("td", { class: "wide", "data-label": "Known from" }, bar);
  return element("tr", { class: kind }, element("th", { scope: "row" }, name),
    cell("Jobs", row.jobs.toLocaleString("en")), cell("GPU time", hours(row.gpu_hours)), cell("Energy", energy(row.facility_kwh)),
    cell("CO2e", mass(row.co2e_kg * 1000)), cell("Electr., USD", money(row.electricity_usd)),
    cell("Cloud price, USD", range(row)), known);
}

let asked = ""; // the month that was chosen by hand; '' for the last one
async function choose(month) {
  asked = month;
  $("month").value = month;
  await refreshLedger();
}

let turn = 0;
async function refreshLedger() {
  const mine = ++turn;
  try {
    const [all, projects] = await Promise.all([ask("api/months"), ask(`api/projects?month=${encodeURIComponent(asked)}`)]);
    if (mine !== turn) return; // another month was chosen meanwhile
    const wrong = all.error || projects.error;
    notice("ledger-notice", wrong ? [`No ledger to show: ${wrong}`] : []);
    $("ledger-body").hidden = Boolean(wrong);
    if (wrong) return;
    months = all.rows;
    showProjects(projects);
    showMonths();
  } catch (error) {
    if (mine === turn) notice("ledger-notice", [`The ledger did not come: ${error.message}`]);
  }
}

async function refreshLive() {
  try {
    showLive(await ask("api/live"));
    $("status").className = lastLive.nodes.length ? "status on" : "status off";
    const text = lastLive.nodes.length ? "live, every 2 s" : "no live agent";
    if ($("status").textContent !== text) $("status").textContent = text;
  } catch (error) {
    $("status").className = "status off";
    $("status").textContent = "not connected";
    lastLive = null;
    $("nodes").replaceChildren(); // old watts are no live watts
    notice("live-notice", [`Live watts did not come: ${error.message}`]);
  }
}

async function forever(work, pause) {
  for (;;) {
    await work();
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

$("month").addEventListener("change", (event) => choose(event.target.value));
$("quantity").addEventListener("change", showMonths);
new ResizeObserver(() => {
  if (months.length && !$("ledger-body").hidden) showMonths();
  if (lastLive) lastLive.nodes.forEach((node, index) => drawNode(node, $("nodes").children[index]));
}).observe(document.body);
forever(refreshLive, LIVE_MS);
forever(refreshLedger, LEDGER_MS);
