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
    cell(row, queue.paused ? "paused " : "").append(button);
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

show(JSON.parse(document.querySelector("#state").textContent));
const stream = new EventSource("/lead/stream");
stream.addEventListener("open", () => (live.textContent = "live"));
stream.addEventListener("error", () => (live.textContent = "not live: connecting again"));
stream.addEventListener("message", (event) => show(JSON.parse(event.data)));
