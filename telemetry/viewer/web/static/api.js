// What the server answers: JSON, or an error that names cause and remedy.

/** Fetch JSON; an error carries what the server says of cause and remedy. */
export async function get(path, signal) {
  let answer;
  try {
    answer = await fetch(path, { signal, headers: { accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("The viewer does not answer. Is it still running?"), { unreachable: true });
  }
  return read(answer);
}

/** Send a file; return how many spans of how many traces were imported, and the first trace's id. */
export async function send(file) {
  let answer;
  try {
    answer = await fetch("/api/import", { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
  } catch {
    throw new Error("The viewer does not answer, or the file cannot be read.");
  }
  return read(answer);
}

async function read(answer) {
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.error || answer.statusText), { status: answer.status, position: body.position });
  return body;
}
