// What the server says: JSON, and what it tells of by itself.

/** Fetch JSON; an error carries what the server says of cause and remedy. */
export async function get(path, signal) {
  let answer;
  try {
    answer = await fetch(path, { signal, headers: { accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The viewer does not answer. Is it still running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.error || answer.statusText), { status: answer.status });
  return body;
}

/** Send a file of OTLP JSON; return the trace id of its first span. */
export async function send(text) {
  const document_ = JSON.parse(text);
  const answer = await fetch("/api/import", { method: "POST", headers: { "content-type": "application/json" }, body: text });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || answer.statusText);
  const spans = (document_.resourceSpans || []).flatMap((r) => (r.scopeSpans || []).flatMap((scope) => scope.spans || []));
  return { accepted: body.accepted, trace: spans.length ? String(spans[0].traceId).toLowerCase() : null };
}

/** Tell `heard(kind, value)` of each event, and `connected(bool)` of the connection; return a stop. */
export function listen(heard, connected) {
  const source = new EventSource("/api/events");
  source.onopen = () => connected(true);
  source.onerror = () => connected(false);
  for (const kind of ["trace", "stats"]) source.addEventListener(kind, (event) => heard(kind, JSON.parse(event.data)));
  return () => source.close();
}
