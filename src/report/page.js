'use strict';
// Sorts tables, enlarges figures, unfolds results for paper, and loads the page again while runs go on. Without it the page says the same.
(() => {
  const make = (tag, set) => Object.assign(document.createElement(tag), set);
  const store = {
    get: (key) => { try { return sessionStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* A page without a memory. */ } },
  };

  // Tables. A cell's data-v is its number; text that is a number counts as one; cells without a value stay at the end.
  const key = (row, i) => {
    const cell = row.cells[i], text = cell.textContent.trim();
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const number = Number(text.replace('\u2212', '-').replace(/[\u2009_]/g, ''));
    return text === '' || text === '\u2013' ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === 'number' && typeof b === 'number' ? a - b
    : typeof a === typeof b ? a.localeCompare(b, 'en', { numeric: true }) : typeof a === 'number' ? -1 : 1;
  const sort = (table, i, down) => {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], number = heads[i].classList.contains('num');
    heads.forEach((head) => head.removeAttribute('aria-sort'));
    heads[i].setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const keyed = [...body.rows].map((row) => {
      const k = key(row, i);
      return [number && typeof k === 'string' ? null : k, row];
    });
    const known = keyed.filter(([k]) => k !== null).sort(([a], [b]) => down ? compare(b, a) : compare(a, b));
    body.append(...known.concat(keyed.filter(([k]) => k === null)).map(([, row]) => row));
    store.set(`sort ${location.pathname} ${table.id}`, `${i} ${down ? 1 : 0}`);
  };
  for (const table of document.querySelectorAll('table')) {
    const heads = [...table.tHead.rows[0].cells];
    if (table.tBodies[0].rows.length < 2) continue;
    heads.forEach((head, i) => {
      const button = make('button', { type: 'button', title: 'Sort' });
      button.append(...head.childNodes);
      button.addEventListener('click', () => sort(table, i, head.getAttribute('aria-sort') === 'ascending'));
      head.append(button);
    });
    // A page that loaded itself again keeps the order it was read in.
    const [i, down] = (document.body.dataset.live && store.get(`sort ${location.pathname} ${table.id}`) || '').split(' ');
    if (i && heads[i]) sort(table, Number(i), down === '1');
  }

  // Figures, as large as the window, then twice that.
  const dialog = make('dialog'), image = make('img', { alt: '' }), room = make('div', { tabIndex: 0 });
  const bar = make('form', { method: 'dialog' }), title = make('strong', { id: 'enlarged' });
  const larger = make('button', { type: 'button' });
  const zoom = (on) => {
    room.classList.toggle('twice', on);
    larger.textContent = on ? 'Fit' : 'Larger';
  };
  larger.addEventListener('click', () => zoom(!room.classList.contains('twice')));
  image.addEventListener('click', () => zoom(!room.classList.contains('twice')));
  dialog.setAttribute('aria-labelledby', 'enlarged');
  bar.append(title, larger, make('button', { textContent: 'Close' }));
  room.append(image);
  dialog.append(bar, room);
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  for (const link of document.querySelectorAll('a.card')) {
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || !dialog.showModal) return;
      event.preventDefault();
      const shown = link.querySelector('img');
      image.src = shown.currentSrc || shown.src;
      image.alt = title.textContent = shown.alt;
      const [width, height] = shown.naturalWidth ? [shown.naturalWidth, shown.naturalHeight] : [shown.width, shown.height];
      image.style.setProperty('--ratio', width / height);
      dialog.className = link.className;
      zoom(false);
      dialog.showModal();
    });
  }

  // What is folded on a screen and belongs to the results is open on paper.
  const folded = () => document.querySelectorAll('details.paper:not([open])');
  let opened = [];
  addEventListener('beforeprint', () => { opened = [...folded()]; opened.forEach((d) => { d.open = true; }); });
  addEventListener('afterprint', () => { opened.forEach((d) => { d.open = false; }); opened = []; });

  // Runs that go on.
  const seconds = Number(document.body.dataset.live);
  if (seconds) setInterval(() => { if (!dialog.open && !document.hidden) location.reload(); }, 1000 * seconds);
})();
