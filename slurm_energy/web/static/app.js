// Asks for live watts every two seconds and for the ledger once a minute.
import { ask } from "./ask.js";
import { choose, refreshLedger, showMonths } from "./ledger.js";
import { drawNodes, showLive, showNoLive } from "./live.js";
import { $ } from "./page.js";

const LIVE_MS = 2000, LEDGER_MS = 60000;

async function refreshLive() {
  try {
    showLive(await ask("api/live"));
  } catch (error) {
    showNoLive(error);
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
  showMonths();
  drawNodes();
}).observe(document.body);
forever(refreshLive, LIVE_MS);
forever(refreshLedger, LEDGER_MS);
