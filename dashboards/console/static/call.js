// Calls to the console's own server; every one carries the session's token against forged requests.

const token = document.querySelector('meta[name="csrf"]').content;

export class Refused extends Error {
  constructor(status, said) {
    super(said.error || `the server answered ${status}`);
    this.status = status;
    this.lost = said.lost === true;
  }
}

export async function call(path, body = {}, { keepalive = false } = {}) {
  const answer = await fetch(path, {
    method: "POST",
    keepalive,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: JSON.stringify(body),
  });
  if (answer.status === 401) {
    location.assign("/sign-in");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw new Refused(answer.status, said);
  }
  return said;
}
