// eddyline's live page: draws what the server says, and turns clicks into events.
//
// The server sends a few named slots (visitor, kafka, status, window, list), each a whole snapshot: every function
// draw.<slot> below redraws its part from one snapshot, so a lost connection costs nothing but time.
// Text from the catalogue only ever becomes a text node; there is no place here where it could become markup.

const $ = (id) => document.getElementById(id);
const still = matchMedia('(prefers-reduced-motion: reduce)');
const PAST_TENSE = { view: 'viewed', click: 'clicked', buy: 'bought', rating: 'rated', favorite: 'favoured',
  share: 'shared', add_to_cart: 'put in the cart', remove_from_cart: 'took out of the cart', return: 'returned' };
const PAGE = 12;
const state = { actions: [], events: [], list: null, mix: null, offset: 0, stream: null };

const did = (action) => PAST_TENSE[action] ?? action;
const percent = (share) => `${Math.round(100 * (share ?? 0))}%`;
const whole = (n) => Math.round(n).toLocaleString('en');
const brief = (n) => (n < 10 ? String(Math.round(10 * n) / 10) : whole(n));
const count = (n, what) => `${whole(n)} ${what}${n === 1 ? '' : 's'}`;
const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

function make(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

function shape(tag, attributes) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function button(className, label, onclick) {
  const node = make('button', className, label);
  node.type = 'button';
  node.addEventListener('click', onclick);
  return node;
}

function age(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}

// ---- one notice at a time: what is wrong, and what to do -------------------------------------------------------
const troubles = new Map();
function trouble(kind, text) {
  if (text) troubles.set(kind, text); else troubles.delete(kind);
  const [shown] = troubles.values();
  $('notice').textContent = shown ?? '';
  $('notice').hidden = !shown;
}

// ---- events ----------------------------------------------------------------------------------------------------
async function post(path, body) {
  const headers = { 'Content-Type': 'application/json' };
  let response;
  try {
    response = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
  } catch {
    throw new Error('The page’s server does not answer: check that it still runs.');
  }
  if (response.status === 401) connect();
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answered ${response.status}.`);
  return answer;
}

async function send(item, action, node) {
  node.setAttribute('aria-busy', 'true');
  try {
    await post('/api/events', { item, action });
    trouble('event', null);
  } catch (error) {
    trouble('event', `Not sent: ${error.message}`);
    setTimeout(() => trouble('event', null), 8000);
  } finally {
    node.removeAttribute('aria-busy');
  }
}

/** An item's title (its main action) with small buttons for the other actions. */
function itemParts(card) {
  const main = state.actions.includes('click') ? 'click' : state.actions[0];
  const title = button('title', card.title, () => send(card.item, main, title));
  if (card.categories.length) title.append(make('span', 'categories', card.categories.join(' · ')));
  const others = make('span', 'actions', ...state.actions.filter((a) => a !== main).map((action) => {
    const node = button('', action.replaceAll('_', ' '), () => send(card.item, action, node));
    node.setAttribute('aria-label', `${action.replaceAll('_', ' ')}: ${card.title}`);
    return node;
  }));
  return [title, others];
}

// ---- the catalogue ---------------------------------------------------------------------------------------------
let asked = 0;
async function browse(offset = 0) {
  const mine = ++asked;
  const query = new URLSearchParams({ q: $('search').value, offset, limit: PAGE });
  let page;
  try {
    page = await (await fetch(`/api/catalog?${query}`)).json();
  } catch {
    return; // the stream says that the server is away; browsing starts again with the next connection
  }
  if (mine !== asked) return; // an answer to an older question
  state.offset = page.offset;
  const rows = page.items.map((card) => make('li', '', ...itemParts(card)));
  if (!rows.length) rows.push(make('li', 'empty', 'No title or category holds all of these words.'));
  $('catalogue').replaceChildren(...rows);
  const last = page.offset + page.items.length;
  const range = `${whole(page.offset + 1)}–${whole(last)} of ${whole(page.total)}`;
  $('catalogue-count').textContent = page.items.length ? range : '';
  $('back').disabled = page.offset === 0;
  $('more').disabled = last >= page.total;
}

// ---- the list --------------------------------------------------------------------------------------------------
/** Redraw by moving (FLIP): note where each row is, update, and let each travel from its old place to its new one. */
function flip(parent, update) {
  const before = new Map([...parent.children].map((row) => [row, row.getBoundingClientRect().top]));
  for (const row of parent.children) row.getAnimations().forEach((a) => a.cancel());
  update();
  if (still.matches) return;
  const timing = { duration: 450, easing: 'cubic-bezier(.2,.8,.2,1)' };
  const moves = [...parent.children].map((row) => [row, before.get(row), row.getBoundingClientRect().top]);
  for (const [row, was, is] of moves) {
    if (was === undefined) row.animate([{ opacity: 0, transform: 'translateX(24px)' }, {}], timing);
    else if (was !== is) row.animate([{ transform: `translateY(${was - is}px)` }, {}], timing);
  }
}

/** One reason: a bar as long as its share, and why. A reason that goes on like the last one only says "and". */
function reasonLine(reason, i, all) {
  const taste = reason.type === 'taste';
  const goesOn = i > 0 && reason.type === 'interaction' && all[i - 1].action === reason.action;
  const full = taste ? 'your taste: ' : `because you ${did(reason.action)} `;
  const share = ` ${percent(reason.share)}`;
  const bar = make('i', 'bar', make('i'));
  bar.firstChild.style.width = percent(reason.share);
  if (reason.type === 'popular') return make('li', 'popular', bar, make('em', '', 'popular'), ' just now', share);
  const content = [bar, goesOn ? 'and ' : full, make('em', '', taste ? reason.taste : reason.title), share];
  if (taste) return make('li', 'taste', ...content);
  const node = button('', '', () => light(reason, true));
  node.append(...content);
  if (goesOn) node.setAttribute('aria-label', full + reason.title + share);
  for (const event of ['mouseenter', 'focus']) node.addEventListener(event, () => light(reason));
  for (const event of ['mouseleave', 'blur']) node.addEventListener(event, () => light(null));
  return make('li', 'interaction', node);
}

function listRow(card) {
  const row = make('li', '', make('span', 'rank'), ...itemParts(card), make('ul', 'reasons'));
  row.dataset.item = card.item;
  return row;
}

function movement(from, to) {
  if (from === undefined) return make('small', 'new', 'new');
  return make('small', '', from > to ? `▲${from - to}` : from < to ? `▼${to - from}` : '');
}

function drawList(list) {
  const shown = [...$('list').children];
  const rows = new Map(shown.map((row) => [row.dataset.item, row]));
  const ranks = new Map((state.list ?? list).items.map((it) => [it.item, it.rank]));
  const heldAt = shown.findIndex((row) => row.contains(document.activeElement));
  flip($('list'), () => $('list').replaceChildren(...list.items.map((it) => {
    const row = rows.get(it.item) ?? listRow(it);
    row.firstChild.replaceChildren(String(it.rank), movement(ranks.get(it.item), it.rank));
    row.lastChild.replaceChildren(...it.reasons.map(reasonLine));
    return row;
  })));
  // Moving a row drops its focus, and a row that was clicked leaves the list: go on at that place.
  if (heldAt >= 0) {
    const row = shown[heldAt].isConnected ? shown[heldAt] : $('list').children[heldAt] ?? $('list').lastChild;
    row?.querySelector('.title').focus({ preventScroll: true });
  }
  $('list-empty').hidden = list.items.length > 0;
  const fresh = state.list ? list.items.filter((it) => !ranks.has(it.item)).length : list.items.length;
  const top = list.items.slice(0, 3).map((it) => it.title).join('; ');
  $('spoken').textContent = `Your list has changed: ${fresh} of ${list.items.length} are new. First: ${top}.`;
}

// ---- the two currents ------------------------------------------------------------------------------------------
/** Two bands, as wide as their shares, that meet and run on side by side: the line between is the eddy line. */
function paintCurrents(now) {
  const width = 56;
  const bands = [['now', now, 28, 55 - (width * (1 - now)) / 2], ['past', 1 - now, 82, 55 + (width * now) / 2]];
  for (const [name, share, from, to] of bands) {
    for (const path of $('currents').querySelectorAll(`.${name} path`)) {
      path.setAttribute('d', `M0 ${from} C 170 ${from} 190 ${to} 360 ${to} L 600 ${to}`);
    }
    $('currents').querySelector(`.${name} path`).setAttribute('stroke-width', Math.max(2, width * share));
  }
}

function drawCurrents(interest) {
  $('meeting').classList.toggle('mixed', Boolean(interest));
  for (const current of ['short', 'long']) $(current).textContent = interest ? percent(interest[current]) : '–';
  $('short-note').textContent = interest ? `${count(interest.window, 'event')} in your window` : '';
  const old = interest?.profile_age_s;
  $('long-note').textContent = interest ? (old == null ? 'no profile of you yet' : `profile ${age(old)} old`) : '';
  const [from, goal] = [state.mix ?? 0.5, interest ? interest.short / (interest.short + interest.long || 1) : 0.5];
  state.mix = goal;
  if (still.matches || !interest) return paintCurrents(goal);
  const began = performance.now();
  const step = (now) => {
    const left = (1 - clamp((now - began) / 500, 0, 1)) ** 3;
    if (state.mix !== goal) return; // a newer list goes elsewhere
    paintCurrents(goal + (from - goal) * left);
    if (left > 0) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
  for (const foam of $('currents').querySelectorAll('.foam')) {
    foam.animate([{ strokeDashoffset: 140, opacity: 0.7 }, { strokeDashoffset: 0, opacity: 0 }], 1400);
  }
}

function drawLatency() {
  const times = state.events.map((e) => e.ms).filter((ms) => ms !== null);
  $('latency').textContent = times.length ? `${brief(times.at(-1))} ms` : '–';
  $('latency').classList.toggle('waiting', state.events.at(-1)?.ms === null);
  const [top, step] = [Math.max(...times, 1), 112 / Math.max(1, times.length - 1)];
  const points = times.map((ms, i) => [116 - step * (times.length - 1 - i), 25 - (21 * ms) / top]);
  const [cx, cy] = points.at(-1) ?? [];
  $('spark').replaceChildren(shape('polyline', { points: points.join(' ') }));
  if (times.length) $('spark').append(shape('circle', { cx, cy, r: 2.5 }));
  const middle = [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)];
  $('latency-note').textContent = times.length ? `median ${brief(middle)} ms of ${times.length}`
    : 'the time your click takes to come back';
}

// ---- the window ------------------------------------------------------------------------------------------------
const names = (reason, event) => reason !== null && event.item === reason.item && event.action === reason.action;

/** Light up the events that a reason names (none for null); bring the newest of them into view if asked. */
function light(reason, follow = false) {
  const rows = [...$('window').children];
  rows.forEach((row, i) => row.classList.toggle('lit', names(reason, state.events[i])));
  const newest = rows.findLast((row) => row.classList.contains('lit'));
  if (follow) newest?.scrollIntoView({ block: 'nearest', inline: 'center' });
}

function drawWindow() {
  const reasons = state.list?.items.flatMap((it) => it.reasons.filter((r) => r.type === 'interaction')) ?? [];
  const pull = state.events.map((e) => reasons.filter((r) => names(r, e)).reduce((sum, r) => sum + r.share, 0));
  const most = Math.max(...pull, 0.001);
  $('window').replaceChildren(...state.events.map((e, i) => {
    const dot = make('i');
    dot.style.width = dot.style.height = `${9 + 15 * Math.sqrt(pull[i] / most)}px`;
    const when = make('small', '');
    when.dataset.ts = e.ts;
    const row = make('li', e.ms === null ? 'under-way' : '', dot, make('span', '', e.title), when);
    row.dataset.action = did(e.action);
    row.title = `${did(e.action)} ${e.title}\n${e.topic}, partition ${e.partition}, offset ${e.offset}`;
    // Time runs to the right; a pause is a longer stretch of line, but never so long that the line is lost.
    const pause = i ? (e.ts - state.events[i - 1].ts) / 1000 : 0;
    row.style.marginInlineStart = `${i ? clamp(7 * Math.log2(1 + pause), 0, 70) : 0}px`;
    return row;
  }));
  $('window-empty').hidden = state.events.length > 0;
  drawAges();
}

function drawAges() {
  for (const node of $('window').querySelectorAll('small')) {
    const seconds = (Date.now() - Number(node.dataset.ts)) / 1000;
    node.textContent = `${node.parentNode.dataset.action} · ${seconds < 2 ? 'now' : age(seconds)}`;
  }
}

// ---- the demo's strip and table --------------------------------------------------------------------------------
/** A model's name; it flashes when it changes while you look: a release was swapped in. */
function drawModel(node, name) {
  if (!name || node.textContent === name) return;
  const changed = node.textContent !== '';
  node.textContent = name;
  const lit = { background: 'var(--past)', color: 'var(--card)' };
  if (changed) node.animate([lit, { ...lit, offset: 0.4 }, {}], 2500);
}

function drawRates(status) {
  const { events_per_s, lists_per_s, p50_ms, p99_ms, lag, dead_letters } = status.rates ?? {};
  const cells = { 'events/s': events_per_s, 'lists/s': lists_per_s, 'p50 ms': p50_ms, 'p99 ms': p99_ms, lag,
    'dead letters': dead_letters };
  if (status.to_score) cells.scored = `${whole(status.scored ?? 0)} of ${whole(status.to_score)}`;
  const known = Object.entries(cells).filter(([, value]) => value != null);
  $('rates').replaceChildren(...known.map(([name, value]) =>
    make('div', '', make('dt', '', name), make('dd', '', typeof value === 'number' ? brief(value) : value))));
}

function drawTraining(training) {
  $('training').hidden = !training;
  if (!training) return;
  const { epoch, epochs, loss, hr10, eta_s } = training;
  $('training').value = epoch / (epochs || 1);
  const facts = [`epoch ${epoch} of ${epochs}`, loss != null && `loss ${loss.toFixed(3)}`,
    hr10 != null && `HR@10 ${hr10.toFixed(3)}`, eta_s != null && `${age(eta_s)} to go`];
  $('phase').append(make('small', '', facts.filter(Boolean).join(' · ')));
}

function drawTable(table) {
  const rows = (table ?? []).filter((r) => Number.isFinite(r.hr10));
  $('table-part').hidden = !rows.length;
  const best = Math.max(...rows.map((r) => r.hr10));
  const most = Math.max(...rows.map((r) => r.high ?? r.hr10)) || 1;
  $('table').replaceChildren(...rows.map(({ name, hr10, ndcg10, low = hr10, high = hr10 }) => {
    const interval = make('span', 'interval', make('i'), make('b'));
    interval.firstChild.style.left = `${(100 * low) / most}%`;
    interval.firstChild.style.width = `${(100 * (high - low)) / most}%`;
    interval.lastChild.style.left = `${(100 * hr10) / most}%`;
    const head = make('th', '', name);
    head.scope = 'row';
    return make('tr', hr10 === best ? 'best' : '', head, make('td', '', hr10.toFixed(3)), make('td', '', interval),
      make('td', '', ndcg10?.toFixed(3) ?? ''));
  }));
}

// ---- the slots -------------------------------------------------------------------------------------------------
const draw = {
  visitor({ id, actions }) {
    if ($('visitor').title !== id) { // someone new: nothing of the last one stays
      Object.assign(state, { events: [], list: null, mix: null });
      $('list').replaceChildren();
      $('list-empty').hidden = false;
      drawCurrents(null);
    }
    $('visitor').title = id;
    $('visitor').textContent = id.slice(0, 12);
    state.actions = actions;
    browse(state.offset);
  },
  kafka({ ready, message }) {
    trouble('kafka', ready ? null : `${message}. The page goes on by itself as soon as Kafka is back.`);
    document.body.dataset.kafka = ready ? 'ready' : 'away';
  },
  window(events) {
    const more = events.length && events.at(-1).offset !== state.events.at(-1)?.offset;
    state.events = events;
    drawWindow();
    drawLatency();
    if (more) $('window').scrollTo({ left: $('window').scrollWidth, behavior: still.matches ? 'auto' : 'smooth' });
  },
  list(list) {
    drawList(list);
    state.list = list;
    drawCurrents(list.interest);
    drawModel($('list-model'), list.model);
    drawWindow();
  },
  status(status) {
    const { phase, message, training, rates, model } = status;
    $('strip').hidden = !(phase || message || training || rates || model);
    $('phase').replaceChildren(make('b', '', phase ?? ''), message ? ` ${message}` : '');
    drawTraining(training);
    drawRates(status);
    drawTable(status.table);
    drawModel($('model'), model);
  },
};

/** Open the stream, or open it anew: loading "/" first makes a visitor of us where the server knows none. */
function connect() {
  state.stream?.close();
  const stream = new EventSource('/api/stream');
  state.stream = stream;
  for (const [slot, drawSlot] of Object.entries(draw)) {
    stream.addEventListener(slot, (event) => drawSlot(JSON.parse(event.data)));
  }
  stream.addEventListener('open', () => trouble('server', null));
  stream.addEventListener('error', () => {
    if (state.stream !== stream) return;
    if (stream.readyState === EventSource.CLOSED) { // refused: an unknown visitor, or too many pages
      setTimeout(() => fetch('/', { cache: 'no-store' }).catch(() => {}).then(connect), 2000);
    }
    setTimeout(() => {
      if (stream.readyState !== EventSource.OPEN && state.stream === stream) {
        trouble('server', 'The page’s server does not answer: check that it still runs. Trying again.');
      }
    }, 1500);
  });
}

$('renew').addEventListener('click', async () => {
  try {
    await post('/api/visitor', {});
    connect();
  } catch (error) {
    trouble('event', error.message);
  }
});
let typing;
$('search').addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(browse, 150); });
$('back').addEventListener('click', () => browse(Math.max(0, state.offset - PAGE)));
$('more').addEventListener('click', () => browse(state.offset + PAGE));
setInterval(drawAges, 1000);
drawCurrents(null);
connect();
