// Review: one item after the other, by keys. Whatever came from outside goes into the page as text, never as markup.

import { call } from "./call.js";
import { Veil } from "./veil.js";

const at = (id) => document.getElementById(id);
const setup = JSON.parse(at("setup").textContent);
const PICKS = "123456789fghijklopqrtwy";
const LOOK_AGAIN_MS = 10_000;

const hands = []; // the item that is shown, then the one that comes next
let first = ""; // the first of two keys: v or a
let last = null; // what was answered last, as long as it can be undone
let filling = null;

const veil = new Veil(setup, (job, error) => failed(job, error));

function say(words, for_ms = 4000) {
  at("said").textContent = words;
  clearTimeout(say.timer);
  if (words) say.timer = setTimeout(() => (at("said").textContent = ""), for_ms);
}

// What is handed out.

async function fill() {
  if (filling) return filling;
  filling = (async () => {
    try {
      const have = hands.map((job) => job.job).concat(last ? [last.job.job] : []);
      const said = await call("/api/claim", { have, want: 2 - hands.length });
      if (said.reason === "break") {
        const kept = hands.filter((job) => said.kept.includes(job.job));
        if (kept[0] !== hands[0]) veil.close();
        hands.splice(0, hands.length, ...kept);
      }
      hands.push(...said.jobs.map(fresh));
      if (said.last && !last) recall(said.last);
      veil.prepare(hands);
      if (at("job").hidden || hands.length === said.jobs.length) show(said);
    } catch (error) {
      if (!hands.length) show({ reason: error.message });
      else say(error.message);
    } finally {
      filling = null;
    }
  })();
  return filling;
}

const fresh = (job) => ({ ...job, answers: [], note: "" });

// What was answered before the page was opened anew, and still waits.
function recall({ job, lease, undo_s }) {
  last = { job: { job, lease }, sent: Promise.resolve(), also: [] };
  const mine = last;
  at("undo").disabled = false;
  say(`Your last answer waits. u takes it back within ${Math.ceil(undo_s)} s.`);
  setTimeout(() => forget(mine), undo_s * 1000);
}

const NOTHING = {
  empty: "Nothing waits for you. This page looks again by itself.",
  budget: "You have seen enough for today: only mild items come to you, and none waits.",
  rebuild: "The queue is being made again from the log. This page looks again by itself.",
  holds: "You hold as many items as one may. Answers on their way free them in some seconds.",
};

function show(said = {}) {
  const job = hands[0];
  at("job").hidden = !job;
  at("empty").hidden = Boolean(job);
  clearTimeout(show.timer);
  if (!job) {
    const resting = said.reason === "break";
    const until = said.until && new Date(said.until).toLocaleTimeString([], { timeStyle: "short" });
    at("nothing").textContent = resting
      ? `You are on a break${until ? ` until ${until}` : ""}${said.own ? "" : ": what you have seen was much"}. Nothing comes to you.`
      : (NOTHING[said.reason] ?? said.reason ?? "Looking for your next item …");
    at("back").hidden = !(resting && said.own);
    at("again").hidden = resting || !said.reason;
    show.timer = setTimeout(fill, LOOK_AGAIN_MS);
    return;
  }
  at("queue").textContent = job.queue;
  at("lane").hidden = job.lane !== "urgent";
  const parts = { first: "", second: "second opinion", adjudication: "last word", approval: "approval", appeal: "appeal", audit: "audit" };
  at("part").textContent = [parts[job.part] ?? job.part, job.widened ? `written in ${job.language}` : ""].filter(Boolean).join(", ");
  at("part").hidden = !at("part").textContent;
  at("due").textContent = due(job);
  at("due").className = job.late ? "bad" : "dim";
  at("force").textContent = job.in_force;
  at("why").replaceChildren(...job.why.map((words) => made("p", words)));
  at("caption").textContent = job.caption;
  at("caption").hidden = !job.caption;
  facts(job);
  near(job);
  alike(job);
  before(job);
  at("note").value = job.note;
  veil.show(job);
  ask();
}

function made(tag, words) {
  const element = document.createElement(tag);
  element.textContent = words;
  return element;
}

function due(job) {
  const minutes = Math.round((new Date(job.due) - Date.now()) / 60_000);
  const span = (m) => (m < 120 ? `${m} min` : m < 2880 ? `${Math.floor(m / 60)} h` : `${Math.floor(m / 1440)} d`);
  return minutes < 0 ? `late by ${span(-minutes)}` : `due in ${span(minutes)}`;
}

function facts(job) {
  const rows = [["Author", job.author || "unknown"]];
  for (const item of job.author_before) rows.push(["Sent before", became(item)]);
  rows.push(...Object.entries(job.context), ["Stands here by", job.standing]);
  for (const report of job.reports) rows.push([`Report: ${report.category}`, report.text]);
  for (const note of job.notes) rows.push([`Note by ${note.by}`, note.text]);
  at("facts").replaceChildren(...rows.flatMap(([name, words]) => [made("dt", name), made("dd", words)]));
  at("more").open = false;
}

function became(item) {
  const when = item.at ? `, ${new Date(item.at).toLocaleDateString()}` : "";
  return `${item.caption ? `“${item.caption}” ` : ""}${item.became}${when}`;
}

// Waiting items that look the same: a marked one gets the same answer as the one that is shown.
function near(job) {
  const count = job.near.length;
  job.marked ??= new Set();
  at("near").hidden = !count;
  at("near").open = false;
  at("near-count").textContent = count === 1 ? "1 waiting item looks the same" : `${count} waiting items look the same`;
  at("near-items").replaceChildren(
    ...job.near.map((item) => {
      const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: job.marked.has(item.job) });
      box.disabled = !item.together;
      box.addEventListener("change", () => (box.checked ? job.marked.add(item.job) : job.marked.delete(item.job)));
      const exact = item.bits ? "" : " (the same picture)";
      const apart = item.together ? "" : ": asks something else, so it comes by itself";
      const label = document.createElement("label");
      label.append(box, made("span", `${item.caption ? `“${item.caption}”` : "without a caption"}${exact}${apart}`));
      const row = document.createElement("li");
      row.append(label);
      return row;
    }),
  );
}

function mark() {
  const job = hands[0];
  const all = job.near.filter((item) => item.together).map((item) => item.job);
  job.marked = job.marked.size < all.length ? new Set(all) : new Set();
  near(job);
  at("near").open = all.length > 0;
}

// Items with the same media, or such as look the same, and what was decided: what they say may differ.
function alike(job) {
  const count = job.similar.length;
  at("alike").hidden = !count;
  at("alike").open = false;
  const how = job.similar.every((item) => item.same) ? "with the same media" : count === 1 ? "that looks the same" : "that look the same";
  at("alike-count").textContent = `${count} other ${count === 1 ? "item" : "items"} ${how}`;
  at("alike-items").replaceChildren(
    ...job.similar.map((item) => made("li", `${became(item)}${item.same ? "" : " (not the same bytes)"}`)),
  );
}

function before(job) {
  const parts = [];
  if (job.appeal !== null) {
    parts.push(made("h3", "The author says"), made("p", job.appeal), made("h3", "The decision"), made("p", job.appealed.decision));
    for (const rule of job.appealed.rules) parts.push(...reads(job.appealed, rule));
  }
  job.before.forEach((verdict, index) => {
    const note = verdict.note ? ` (“${verdict.note}”)` : "";
    parts.push(made("p", `Reviewer ${index + 1}: ${verdict.said.join(", ")}${note}`));
  });
  at("before").replaceChildren(...parts);
  at("before").hidden = !parts.length;
}

function reads(appealed, rule) {
  if (!appealed.known) return [made("p", `How the policy ${rule.title} read then is not known any more.`)];
  if (rule.same) return [made("p", `The policy ${rule.title} reads today as it did then.`)];
  const lines = (words) => (words.length ? words : ["(nothing)"]).map((line) => made("li", line));
  const lists = [["then", rule.then], ["now", rule.now]].map(([when, words]) => {
    const list = document.createElement("ul");
    list.append(...lines(words));
    return [made("p", `What ${rule.title} said ${when} only:`), list];
  });
  return lists.flat();
}

// The question and its answers.

function asked(job) {
  return job.picked ?? job.questions[job.answers.length] ?? whole(job);
}

// An upload that was put before a person as a whole: the rule comes first, its clause then.
function whole(job) {
  return {
    whole: true,
    title: "Does this upload break a rule?",
    text: "No model has judged it. Name the rule that it breaks, or allow it.",
    clauses: job.choices.map((choice) => ({
      id: choice.clause ? `${choice.title}, ${choice.clause}` : choice.title,
      text: "",
    })),
    allowed: [],
    rationale: null,
  };
}

function ask() {
  const job = hands[0];
  const question = asked(job);
  const many = job.questions.length > 1 ? ` (${job.answers.length + 1} of ${job.questions.length})` : "";
  at("title").textContent = question.title + (question.clause ? `, ${question.clause}` : "") + many;
  at("text").textContent = question.text;
  list(at("clauses"), question.clauses.map((clause, index) => [PICKS[index], clause, "v"]));
  const none = { id: "", text: question.allowed.length ? "by no carve-out" : "" };
  list(at("exempt"), [["0", none, "a"], ...question.allowed.map((exempt, index) => [PICKS[index], exempt, "a"])]);
  const words = question.rationale;
  at("model").hidden = !words;
  if (words) {
    at("supported").textContent = standing(words);
    at("rationale").textContent = (words.clause ? `${words.clause}: ` : "") + words.text;
  }
  choose("");
}

// What the model denied when it was asked back is never shown as its own word.
function standing(words) {
  if (!words.supported) return "not supported by the upload";
  if (!words.denied.length) return "supported by the upload";
  const parts = words.denied.map((part) => ({ clause: "clause", text: "words", box: "place" })[part]);
  return `corrected: the model denied its own ${parts.join(" and ")}`;
}

function list(place, rows) {
  place.replaceChildren(
    ...rows.map(([key, rule, kind]) => {
      const button = document.createElement("button");
      const name = rule.id ? `${rule.id} ` : "";
      button.append(made("kbd", key), made("span", name + (rule.text || (rule.id ? "" : "allowed"))));
      button.addEventListener("click", () => {
        choose(kind);
        pick(key);
      });
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}

function choose(key) {
  first = key;
  at("violates").parentElement.parentElement.classList.toggle("chosen", key === "v");
  at("allows").parentElement.parentElement.classList.toggle("chosen", key === "a");
}

function pick(key) {
  const job = hands[0];
  const question = asked(job);
  const index = PICKS.indexOf(key);
  if (first === "v" && index >= 0 && index < question.clauses.length) {
    if (question.whole) {
      job.picked = job.choices[index];
      ask();
      choose("v");
    } else {
      answer({ policy: question.policy, clause: question.clauses[index].id, answer: "violates" });
    }
    return true;
  }
  if (first === "a" && (key === "0" || (index >= 0 && index < question.allowed.length))) {
    const exempt = key === "0" ? null : question.allowed[index].id;
    settle(question, "allowed", exempt);
    return true;
  }
  return false;
}

function settle(question, word, exempt = null) {
  const questions = question.whole ? hands[0].choices : [question];
  answer(...questions.map((q) => ({ policy: q.policy, clause: q.clause, answer: word, carve_out: exempt })));
}

function unclear() {
  hands[0].unclear = true;
  settle(asked(hands[0]), "cannot_tell");
}

function answer(...answers) {
  const job = hands[0];
  job.answers.push(...answers);
  if (!job.picked && job.answers.length < job.questions.length) {
    ask();
    return;
  }
  const said = { job: job.job, lease: job.lease, answers: job.answers, note: job.note, unclear: job.unclear === true, also: [...job.marked] };
  leave();
  last = { job, sent: call("/api/answer", said) };
  const mine = last;
  at("undo").disabled = false;
  mine.sent.then(
    (known) => {
      mine.also = known.also;
      const more = known.also.length ? `, and ${known.also.length} like it` : "";
      const less = known.left.length ? ` ${known.left.length} marked ones were not: ${known.left[0].why}.` : "";
      say(`Answered${more}. u takes it back within ${Math.round(known.undo_s)} s.${less}`, less ? 10_000 : 4000);
      setTimeout(() => forget(mine), known.undo_s * 1000);
      // What has been handed out meanwhile goes back.
      if (known.rest) Promise.resolve(filling).then(fill);
    },
    (error) => {
      forget(mine);
      again(job);
      if (error.lost) lost(job);
      else {
        put(job);
        say(error.message, 10_000);
      }
    },
  );
  // What was marked is not to be handed out as the next item meanwhile.
  if (said.also.length) mine.sent.finally(fill).catch(() => {});
  else fill();
}

function forget(which) {
  if (last !== which) return;
  last = null;
  at("undo").disabled = true;
}

async function undo() {
  const mine = last;
  if (!mine) return say("There is nothing to take back any more.");
  forget(mine);
  try {
    await mine.sent;
    await call("/api/undo", { job: mine.job.job, lease: mine.job.lease });
    for (const other of mine.also) {
      await call("/api/undo", other);
      await call("/api/release", other);
    }
    const job = mine.job.questions ? mine.job : await whole_again(mine.job.job);
    if (job) {
      again(job);
      put(job);
    }
    say("Taken back.");
  } catch (error) {
    say(error.lost ? "Too late: the answer is on its way." : error.message);
  }
}

async function whole_again(id) {
  const said = await call("/api/claim", { have: hands.map((job) => job.job), want: 1 });
  return said.jobs.map(fresh).find((job) => job.job === id);
}

// An answer that was taken back, or not taken, is asked for anew.
function again(job) {
  job.answers = [];
  job.picked = null;
  job.unclear = false;
}

function put(job) {
  if (hands.some((held) => held.job === job.job)) return;
  keep();
  hands.unshift(job);
  veil.prepare(hands);
  show();
}

// The shown item leaves the hands; the next one is there already.
function leave() {
  veil.close();
  const job = hands.shift();
  show();
  return job;
}

function keep() {
  if (hands[0]) hands[0].note = at("note").value;
}

function failed(job, error) {
  if (error.lost) lost(job);
  else say(error.message, 8000);
}

// Somebody else may answer it now; nothing that was written is lost.
function lost(job) {
  keep();
  const index = hands.indexOf(job);
  if (index > 0) {
    hands.splice(index, 1);
    fill();
    return;
  }
  at("kept").value = job.note;
  if (index === 0) leave();
  if (!at("lost").open) at("lost").showModal();
  fill();
}

async function renew() {
  for (const job of [...hands]) {
    try {
      await call("/api/renew", { job: job.job, lease: job.lease });
    } catch (error) {
      if (error.lost) lost(job);
    }
  }
}

// Giving an item away.

const AWAY = {
  skip: ["Skip this item", null],
  move: ["Move this item", () => Object.entries(setup.queues)],
  escalate: ["Escalate this item", () => setup.escalations.map((name) => [name, name.replaceAll("_", " ")])],
};

function give(kind) {
  const job = hands[0];
  const [title, places] = AWAY[kind];
  veil.close();
  at("away-title").textContent = title;
  at("away-where").hidden = !places;
  at("away-why").value = "";
  at("away-why").required = kind === "skip";
  at("away-to").replaceChildren(
    ...(places?.() ?? []).map(([value, words]) => Object.assign(made("option", words), { value })),
  );
  at("away").returnValue = "no";
  at("away").onclose = () => at("away").returnValue === "go" && gone(job, kind);
  at("away").showModal();
}

async function gone(job, kind) {
  const why = at("away-why").value;
  const where = at("away-to").value;
  const body = { job: job.job, lease: job.lease, reason: why };
  if (kind === "move") body.queue = where;
  if (kind === "escalate") Object.assign(body, { reason: where, note: why });
  try {
    await call(`/api/${kind}`, body);
    if (hands[0] === job) leave();
    fill();
  } catch (error) {
    failed(job, error);
  }
}

async function rest() {
  veil.close();
  try {
    const said = await call("/api/break", { minutes: 10 });
    hands.length = 0;
    show({ reason: "break", until: said.until, own: true });
  } catch (error) {
    say(error.message);
  }
}

// Keys.

const KEYS = {
  v: () => choose("v"),
  a: () => choose("a"),
  c: () => settle(asked(hands[0]), "cannot_tell"),
  x: unclear,
  z: () => veil.zoom(),
  n: () => at("note").focus(),
  k: () => (at("near").open = !at("near").open),
  w: mark,
  d: () => (at("more").open = !at("more").open),
  l: () => (at("alike").open = !at("alike").open),
  s: () => give("skip"),
  m: () => give("move"),
  e: () => give("escalate"),
  Escape: () => choose(""),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) {
    if (event.key === " " && event.target === document.body) event.preventDefault();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (event.target.closest("textarea, select, input:not([type=checkbox])")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "?") return at("sheet").showModal();
  if (event.key === "b") return rest();
  if (event.key === "u") return undo();
  if (!hands.length) return;
  if (event.key === " ") {
    if (event.target.closest("button, a, summary, input")) return;
    event.preventDefault();
    if (setup.reveal === "hold") veil.reveal();
    else veil.press();
    return;
  }
  if (veil.pan(event.key)) return event.preventDefault();
  if (first && pick(event.key)) return event.preventDefault();
  if (Object.hasOwn(KEYS, event.key)) {
    event.preventDefault();
    KEYS[event.key]();
  }
});
addEventListener("keyup", (event) => {
  if (event.key === " " && setup.reveal === "hold") veil.close();
});

for (const [id, key] of Object.entries({ violates: "v", allows: "a", unsure: "c", unclear: "x", zoom: "z", skip: "s", move: "m", escalate: "e" })) {
  at(id).addEventListener("click", () => hands.length && KEYS[key]());
}
at("mark").addEventListener("click", mark);
at("undo").addEventListener("click", undo);
at("rest").addEventListener("click", rest);
at("keys").addEventListener("click", () => at("sheet").showModal());
at("again").addEventListener("click", fill);
at("back").addEventListener("click", async () => {
  await call("/api/break/end").catch((error) => say(error.message));
  fill();
});
at("note").addEventListener("input", keep);

setInterval(renew, (setup.lease_s * 1000) / 2);
show();
fill();
