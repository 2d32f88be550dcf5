// The ledger: months, and the projects of one.
import { ask } from "./ask.js";
import { bars, share } from "./charts.js";
import { axis, energy, hours, mass, money, percent, range, usd } from "./numbers.js";
import { $, cell, element, notice, selectedIn } from "./page.js";

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
let months = [], chosen = "";

export function showMonths() {
  if (!months.length || $("ledger-body").hidden) return;
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
export async function choose(month) {
  asked = month;
  $("month").value = month;
  await refreshLedger();
}

let turn = 0, shownLedger = "";
export async function refreshLedger() {
  const mine = ++turn, month = asked;
  try {
    const [all, projects] = await Promise.all([ask("api/months"), ask(`api/projects?month=${encodeURIComponent(month)}`)]);
    if (mine !== turn) return; // another month was chosen meanwhile
    const wrong = all.error || projects.error;
    notice("ledger-notice", wrong ? [`No ledger to show: ${wrong}`] : []);
    $("ledger-body").hidden = Boolean(wrong);
    const found = JSON.stringify([all, projects]);
    if (wrong || found === shownLedger) return;
    if (shownLedger && projects.month === chosen && selectedIn($("ledger-body"))) return; // until the next time
    shownLedger = found;
    months = all.rows;
    showProjects(projects);
    showMonths();
  } catch (error) {
    if (mine === turn) notice("ledger-notice", [`The ledger did not come: ${error.message}`]);
  }
}
