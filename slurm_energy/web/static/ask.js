// Asks the server, with the token that the address brought.
let token = "";

if (location.hash.startsWith("#token=")) {
  token = decodeURIComponent(location.hash.slice(7));
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname); // not to be seen over a shoulder, nor bookmarked
} else {
  token = sessionStorage.getItem("token") ?? "";
}

export async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, signal: AbortSignal.timeout(20000) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || `HTTP ${answer.status}`);
  return found;
}
