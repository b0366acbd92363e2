// The lead's numbers, live. Text only ever goes in as text.

import { call } from "./call.js";

const rows = document.querySelector("#queues tbody");
const people = document.querySelector("#people");
const live = document.querySelector("#live");

function cell(row, text, kind = "") {
  const made = row.insertCell();
  made.textContent = text;
  made.className = kind;
  return made;
}

function age(minutes) {
  if (minutes < 120) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 1440)} d`;
}

function show(state) {
  const focused = document.activeElement?.dataset?.queue;
  rows.replaceChildren();
  for (const queue of state.queues) {
    const row = rows.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = queue.title + (queue.lane === "urgent" ? " (urgent)" : "");
    row.append(name);
    cell(row, queue.open, "number");
    cell(row, queue.held, "number");
    cell(row, queue.late, queue.late ? "number bad" : "number");
    cell(row, queue.open + queue.held ? age(queue.oldest_min) : "", "number");
    cell(row, queue.in_an_hour, "number");
    cell(row, queue.out_an_hour, "number");
    cell(row, queue.will_be_late, queue.will_be_late ? "number bad" : "number");
    const button = document.createElement("button");
    button.textContent = queue.paused ? "Resume" : "Pause";
    button.dataset.queue = queue.queue;
    button.setAttribute("aria-label", `${button.textContent} ${queue.title}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await call("/api/pause", { queue: queue.queue, pause: !queue.paused });
      } catch (error) {
        live.textContent = error.message;
      }
    });
    const handing = cell(row, queue.paused ? "paused " : "");
    if (queue.may_pause) handing.append(button);
    if (queue.queue === focused) button.focus();
  }
  people.replaceChildren(
    ...state.people.map((person) => {
      const item = document.createElement("li");
      item.textContent = `${person.name}: ${person.state}`;
      return item;
    }),
  );
}

// Jobs that can be handed over, and what verdicts add up to: read now and then, for they cost more than counts.

const JOBS_MS = 15_000;
const FIGURES_MS = 60_000;

function named(row, text) {
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = text;
  row.append(name);
}

function choice(job, people) {
  const select = document.createElement("select");
  select.setAttribute("aria-label", `Hand ${job.queue}, due ${new Date(job.due).toLocaleString()}, to`);
  select.append(new Option("…", ""), ...people.filter(({ id }) => id !== job.holder).map(({ id, name }) => new Option(name, id)));
  select.addEventListener("change", async () => {
    if (!select.value) return;
    select.disabled = true;
    try {
      await call("/api/reassign", { job: job.job, to: select.value, reason: "handed over by a lead" });
      live.textContent = "handed over";
    } catch (error) {
      live.textContent = error.message;
    }
    await duty();
  });
  return select;
}

async function read(path) {
  const answer = await fetch(path);
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

async function duty() {
  const body = document.querySelector("#duty tbody");
  if (body.contains(document.activeElement) && !document.activeElement.disabled) return;
  const said = await read("/api/duty").catch((error) => {
    live.textContent = error.message;
    return null;
  });
  if (!said) return;
  body.replaceChildren();
  for (const job of said.jobs) {
    const row = body.insertRow();
    named(row, job.queue);
    cell(row, job.policies.join(", "));
    cell(row, job.part);
    cell(row, new Date(job.due).toLocaleString([], { dateStyle: "short", timeStyle: "short" }), job.late ? "bad" : "");
    cell(row, job.holder);
    cell(row, "").append(choice(job, said.people));
  }
}

async function figures() {
  const said = await read("/api/figures").catch(() => null);
  document.querySelector("#verdicts").textContent = said ? `${said.verdicts} so far` : "cannot be read at the moment";
  for (const [name, found] of Object.entries(said ?? {})) {
    if (name === "verdicts") continue;
    const table = document.getElementById(name);
    table.closest("section").hidden = !found.length;
    table.tBodies[0].replaceChildren();
    for (const { of, ...numbers } of found) {
      const row = table.tBodies[0].insertRow();
      named(row, of);
      for (const number of Object.values(numbers)) cell(row, number, "number");
    }
  }
}

duty();
figures();
setInterval(duty, JOBS_MS);
setInterval(figures, FIGURES_MS);

show(JSON.parse(document.querySelector("#state").textContent));
const stream = new EventSource("/lead/stream");
stream.addEventListener("open", () => (live.textContent = "live"));
stream.addEventListener("error", () => (live.textContent = "not live: connecting again"));
stream.addEventListener("message", (event) => show(JSON.parse(event.data)));
