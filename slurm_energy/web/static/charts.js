// Charts as SVG, made of numbers only: no text of a user becomes markup, here or anywhere.
import { element, fill, selectedIn, update } from "./page.js";

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Steps of 1, 2 or 5 times a power of ten from 0 up to at least `most`, about `wanted` of them. */
function ticks(most, wanted = 4) {
  if (!(most > 0)) return [0, 1];
  const rough = most / wanted, size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((times) => times * size >= rough * 0.999) * size;
  const found = [0];
  while (found.at(-1) < most * 0.999) found.push(found.length * step);
  return found;
}

function frame(place, label, most, format, left, bottom) {
  const width = Math.max(place.clientWidth, 120), height = Math.max(place.clientHeight, 80);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const steps = ticks(most), top = 8;
  const y = (value) => height - bottom - (value / steps.at(-1)) * (height - bottom - top);
  for (const step of steps) {
    svg.append(shape("line", { class: "grid", x1: left, x2: width, y1: y(step), y2: y(step) }));
    svg.append(shape("text", { x: left - 8, y: y(step) + 4, "text-anchor": "end" }, format(step)));
  }
  return { svg, width, height, y };
}

/** Watts by domain, stacked, over the last `span` seconds. points: [{t, values: [..]}], t in seconds. */
export function area(place, points, names, span, label) {
  if (selectedIn(place)) return;
  const sums = points.map((point) => point.values.reduce((a, b) => a + b, 0));
  const { svg, width, height, y } = frame(place, label, Math.max(1, ...sums) * 1.05, (w) => `${w.toLocaleString("en")} W`, 64, 22);
  const now = points.at(-1)?.t ?? 0, x = (t) => width - ((now - t) / span) * (width - 64);
  names.forEach((name, index) => {
    const upper = [], lower = [];
    for (const point of points) {
      const below = point.values.slice(0, index).reduce((a, b) => a + b, 0);
      const at = Math.max(x(point.t), 64).toFixed(1);
      upper.push(`${at} ${y(below + point.values[index]).toFixed(1)}`);
      lower.unshift(`${at} ${y(below).toFixed(1)}`);
    }
    if (points.length > 1) svg.append(shape("path", { class: `area ${name}`, d: `M${upper.join("L")}L${lower.join("L")}Z` }));
  });
  svg.append(shape("text", { x: 64, y: height - 4 }, span < 100 ? `${Math.round(span)} s ago` : `${Math.round(span / 60)} min ago`));
  svg.append(shape("text", { x: width, y: height - 4, "text-anchor": "end" }, "now"));
  update(place, [svg]);
}

/** A bar for each month; choose(key) when one is clicked. bars: [{key, value, text}]. */
export function bars(place, all, chosen, format, label, choose) {
  const room = Math.max(6, Math.floor((place.clientWidth - 70) / 16));
  const shown = all.slice(-room);
  const most = Math.max(...shown.map((bar) => bar.value), 0);
  const { svg, width, height, y } = frame(place, label, most, format, 70, 24);
  svg.setAttribute("role", "group");
  const step = (width - 70) / Math.max(shown.length, 1), thick = Math.min(step * 0.72, 56);
  const every = Math.ceil(88 / step);
  shown.forEach((bar, index) => {
    const x = 70 + index * step + (step - thick) / 2, top = Math.min(y(bar.value), y(0) - (bar.value > 0 ? 1 : 0));
    const group = shape("g", {
      class: `month${bar.key === chosen ? " chosen" : ""}`, tabindex: 0, role: "button",
      "aria-label": `${bar.key}: ${bar.text}`, "aria-pressed": bar.key === chosen, "data-key": bar.key,
    });
    group.append(shape("title", {}, `${bar.key}: ${bar.text}`));
    group.append(shape("rect", { class: "hit", x: 70 + index * step, y: 4, width: step, height: height - 6 }));
    group.append(shape("rect", { class: "fill", x, y: top, width: thick, height: y(0) - top, rx: Math.min(3, thick / 4) }));
    if ((shown.length - 1 - index) % every === 0) {
      group.append(shape("text", { x: Math.min(x + thick / 2, width - 26), y: height - 5, "text-anchor": "middle" }, bar.key));
    }
    group.addEventListener("click", () => choose(bar.key));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose(bar.key);
      }
    });
    svg.append(group);
  });
  const focused = document.activeElement?.dataset?.key;
  place.replaceChildren(svg);
  if (focused) [...svg.querySelectorAll(".month")].find((one) => one.dataset.key === focused)?.focus();
}

/** A line of what a job drew, without axes. points: [{t, w}]. */
export function spark(points, span) {
  const svg = shape("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" });
  const now = points.at(-1).t, most = Math.max(...points.map((point) => point.w), 1);
  const place = (point) => `${(100 - ((now - point.t) / span) * 100).toFixed(1)} ${(22 - (point.w / most) * 20).toFixed(1)}`;
  if (points.length > 1) svg.append(shape("path", { d: `M${points.map(place).join("L")}` }));
  return svg;
}

/** Shares of a whole as one bar. parts: [[class, share]]. */
export function share(place, parts, label) {
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label);
  place.replaceChildren(...parts.filter(([, part]) => part > 0.0005).map(([name, part]) => {
    const piece = element("i", { class: name });
    piece.style.flexGrow = part;
    return piece;
  }));
}
