// Parts of the page, and how they are made anew under the eyes and hands of a person. Text goes in as text nodes only.
export const $ = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return fill(made, attributes, children);
}

export function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text nodes
  return made;
}

/** Whether the person has selected text in it, to copy it. */
export function selectedIn(part) {
  const selection = getSelection();
  return selection.type === "Range" && selection.getRangeAt(0).intersectsNode(part);
}

const named = (node) => node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;

/**
 * Makes the children of `place` like `wanted`, node by node: what stays the same is the same node, so that it keeps the
 * focus. Those with data-key are known by it, others by their place. A part (data-part) with selected text waits; what is
 * drawn into data-drawn is left to who draws.
 */
export function update(place, wanted) {
  const keys = new Set(wanted.map(named)), known = new Map();
  for (const child of [...place.childNodes]) {
    const key = named(child);
    if (key === null) continue;
    if (known.has(key) || !keys.has(key)) child.remove();
    else known.set(key, child);
  }
  let at = place.firstChild;
  for (const one of wanted) {
    const key = named(one), before = key === null ? at : known.get(key);
    known.delete(key);
    if (!before || named(before) !== key || before.nodeName !== one.nodeName) {
      place.insertBefore(one, at);
      continue;
    }
    if (before === at) at = at.nextSibling;
    else place.insertBefore(before, at);
    become(before, one);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function become(node, wanted) {
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return;
  }
  if (wanted.hasAttribute("data-part") && selectedIn(node)) {
    node.classList.add("waits");
    return;
  }
  for (const { name } of [...node.attributes]) if (!wanted.hasAttribute(name)) node.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  if (!wanted.hasAttribute("data-drawn")) update(node, [...wanted.childNodes]);
}

export function notice(id, lines) {
  $(id).hidden = !lines.length;
  if (!lines.length || !selectedIn($(id))) update($(id), lines.map((line) => element("div", {}, line)));
}

export function cell(label, text, kind = "n") {
  return element("td", { class: kind, "data-label": label }, text);
}
