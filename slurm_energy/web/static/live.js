// What the agents say now: a card for each node.
import { area, spark } from "./charts.js";
import { age, small, watts } from "./numbers.js";
import { $, cell, element, notice, selectedIn, update } from "./page.js";

const SPAN_S = 300, FIRST_JOBS = 12;
const DOMAINS = [["package", "CPU"], ["dram", "Memory"], ["gpu", "GPU"], ["other", "Other"]];
const past = new Map(); // node or job -> what it drew, oldest first
const opened = new Set(); // nodes of which all jobs are shown
let lastLive = null;

function remember(key, point) {
  const points = past.get(key) ?? [];
  if (points.length && point.t < points.at(-1).t) points.length = 0; // the clock was set back
  if (!points.length || point.t > points.at(-1).t) points.push(point);
  while (points.length && point.t - points[0].t > SPAN_S) points.shift();
  past.set(key, points);
  return points;
}

export function showLive(live) {
  lastLive = live;
  const alive = new Set();
  for (const node of live.nodes.filter((one) => one.live)) {
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
  update($("nodes"), live.nodes.map((node) => node.live ? nodeCard(node) : oldCard(node)));
  drawNodes();
  showStatus(live);
}

function showStatus({ nodes, errors }) {
  const live = nodes.filter((node) => node.live).length, all = nodes.length + errors.length;
  let text = !live ? "no live agent" : live < all ? `${live} of ${all} agents live` : "live, every 2 s";
  if (live && [...document.querySelectorAll("#nodes [data-part]")].some(selectedIn)) text += "; what is selected waits";
  $("status").className = live ? "status on" : "status off";
  if ($("status").textContent !== text) $("status").textContent = text;
}

/** Seconds that the charts show: what there is, from one to five minutes. */
function span(points) {
  return Math.min(Math.max(points.at(-1).t - points[0].t, 60), SPAN_S);
}

function present(node) {
  return DOMAINS.filter(([name]) => past.get(`${node.cluster}/${node.node}`).some((p) => p.values[DOMAINS.findIndex(([n]) => n === name)] > 0));
}

/** A card's parts are made anew each for itself. */
function part(name, ...children) {
  return element("div", { "data-key": name, "data-part": "" }, ...children.flat());
}

function cardOf(node, kind, ...parts) {
  const key = `${kind} ${node.cluster}/${node.node}`;
  return element("article", { class: "card", "aria-label": `Node ${node.node}`, "data-key": key }, ...parts);
}

function headOf(node, facts, power, kind = "watts") {
  return element("div", { class: "node-head", "data-key": "head" },
    element("div", { "data-part": "" }, element("h3", {}, node.node), element("p", { class: "quiet" }, facts.join(" · "))),
    element("div", { class: kind, "data-part": "" }, power));
}

function problemsOf(node) {
  return part("problems", node.problems.map((problem) => element("p", { class: "problem" }, problem)));
}

/** A node whose agent is stuck: what it said last is not of now. */
function oldCard(node) {
  return cardOf(node, "old", headOf(node, [node.cluster], "no live watts", "watts none"), problemsOf(node));
}

function nodeCard(node) {
  const count = node.jobs.length === 1 ? "1 job" : `${node.jobs.length} jobs`;
  const facts = [node.cluster, count, `${watts(node.idle_watts)} idle`];
  if (node.gpus) facts.splice(1, 0, node.gpus === 1 ? "1 GPU" : `${node.gpus} GPUs`);
  if (node.estimated) facts.push("estimated by a model, not measured");
  const legend = element("ul", { class: "legend" }, ...present(node).map(([name, title]) =>
    element("li", { "data-key": name }, element("i", { class: `key ${name}` }), element("span", {}, title), element("b", {}, watts(node.domains[name])))));
  return cardOf(node, "live", headOf(node, facts, watts(node.watts)), problemsOf(node), part("legend", legend),
    part("chart", element("div", { class: "chart", "data-drawn": "" })), part("jobs", node.jobs.length ? jobTable(node) : []),
    ...toggle(node));
}

export function drawNodes() {
  if (!lastLive) return;
  const cards = [...$("nodes").children];
  lastLive.nodes.forEach((node, index) => node.live && drawNode(node, cards[index]));
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
    body.append(element("tr", { "data-key": `${job.id}/${job.run}` },
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
  return found;
}

function toggle(node) {
  if (node.jobs.length <= FIRST_JOBS) return [];
  const id = `${node.cluster}/${node.node}`, all = opened.has(id), text = all ? "Fewer jobs" : `All ${node.jobs.length} jobs`;
  return [element("button", { type: "button", "aria-expanded": all, "data-key": "toggle", "data-toggle": id }, text)];
}

$("nodes").addEventListener("click", ({ target }) => {
  const button = target.closest("[data-toggle]");
  if (!button || !lastLive) return;
  if (!opened.delete(button.dataset.toggle)) opened.add(button.dataset.toggle);
  if (selectedIn(button.parentElement)) getSelection().removeAllRanges(); // or the table would wait
  showLive(lastLive);
});

/** Old watts are no live watts: none are left. */
export function showNoLive(error) {
  lastLive = null;
  $("status").className = "status off";
  $("status").textContent = "not connected";
  $("nodes").replaceChildren();
  notice("live-notice", [`Live watts did not come: ${error.message}`]);
}
