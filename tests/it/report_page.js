// Looks at a report from inside a browser and tells the page around it what it saw.
(() => {
  const seen = { errors: window.probeErrors };
  const visible = (e) => e.checkVisibility ? e.checkVisibility({ visibilityProperty: true }) : e.offsetParent !== null;
  const name = (e) => `${e.tagName.toLowerCase()} "${e.textContent.trim().slice(0, 40)}"`;
  const scrolls = (e) => /auto|scroll/.test(getComputedStyle(e).overflowX);

  // What of a box can be seen without scrolling a box inside the page.
  const clipped = (e, box) => {
    const b = { left: box.left, top: box.top, right: box.right, bottom: box.bottom };
    for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) {
      if (scrolls(p)) {
        const c = p.getBoundingClientRect();
        b.left = Math.max(b.left, c.left);
        b.right = Math.min(b.right, c.right);
      }
    }
    return b;
  };
  const inScroller = (e) => { for (let p = e; p && p !== document.body; p = p.parentElement) if (scrolls(p)) return true; return false; };

  // Every stretch of text with its own boxes.
  const pieces = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || !e || /^(SCRIPT|STYLE)$/.test(e.tagName) || e.closest('.skip') || !visible(e)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) if (r.width > 1 && r.height > 1) pieces.push({ e, box: clipped(e, r), whole: r });
  }
  const width = document.documentElement.clientWidth;
  seen.pieces = pieces.length;
  seen.outside = pieces.filter((p) => !inScroller(p.e) && (p.whole.left < -0.5 || p.whole.right > width + 0.5)).map((p) => name(p.e));
  seen.overlapping = [];
  pieces.sort((a, b) => a.box.top - b.box.top);
  for (let i = 0; i < pieces.length; i += 1) {
    for (let j = i + 1; j < pieces.length && pieces[j].box.top < pieces[i].box.bottom - 2; j += 1) {
      const [a, b] = [pieces[i].box, pieces[j].box];
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left), y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      // Line boxes of one paragraph share their leading.
      if (x > 1 && y > 4) seen.overlapping.push(`${name(pieces[i].e)} over ${name(pieces[j].e)}`);
    }
  }

  // Contrast of text with what is behind it, by WCAG 2.
  const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const luminance = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (let p = e; p; p = p.parentElement) {
      const c = parse(getComputedStyle(p).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c;
    }
    return [255, 255, 255];
  };
  const contrast = (e) => {
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  seen.pale = [...new Set(pieces.map((p) => p.e))].filter((e) => contrast(e) < 4.5).map((e) => `${name(e)} ${contrast(e).toFixed(2)}`);

  const images = [...document.images].filter((i) => !i.closest('dialog'));
  Object.assign(seen, {
    inner: innerWidth,
    scroll: document.documentElement.scrollWidth,
    dark: luminance(parse(getComputedStyle(document.body).backgroundColor)) < 0.2,
    images: images.length,
    narrow: images.filter((i) => i.currentSrc.endsWith('_narrow.svg')).length,
    sideways: [...document.querySelectorAll('.card, #ranking')].filter((e) => e.scrollWidth > e.parentElement.clientWidth + 1).map(name),
    broken: images.filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src),
    fetched: performance.getEntriesByType('resource').map((r) => r.name).filter((n) => !n.startsWith('file:')),
    answer: document.querySelector('#answer .lead').getBoundingClientRect().bottom,
    unnamed: [...document.querySelectorAll('a, button, img, [role=region]')]
      .filter((e) => !(e.textContent.trim() || e.alt || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.querySelector('img[alt]')))
      .filter((e) => !e.closest('dialog')).map((e) => e.outerHTML.slice(0, 80)),
  });

  // Sorting by the time of a run, largest first, then back by the bound.
  const ranking = document.querySelector('#ranking');
  const column = (title) => [...ranking.tHead.rows[0].cells].findIndex((h) => h.textContent.startsWith(title));
  const values = (i) => [...ranking.tBodies[0].rows].map((r) => r.cells[i].dataset.v === undefined ? null : Number(r.cells[i].dataset.v));
  const press = (i) => ranking.tHead.rows[0].cells[i].querySelector('button').click();
  const time = column('time'), bits = column('bits');
  press(time);
  press(time);
  seen.byTime = values(time);
  seen.ariaSort = ranking.tHead.rows[0].cells[time].getAttribute('aria-sort');
  press(bits);
  seen.byBits = values(bits);
  seen.buttons = document.querySelectorAll('th button').length;

  // On paper the results are unfolded, and on the screen folded again.
  const folded = () => document.querySelectorAll('details.paper:not([open])').length;
  seen.folded = [folded()];
  for (const event of ['beforeprint', 'afterprint']) {
    dispatchEvent(new Event(event));
    seen.folded.push(folded());
  }

  // Enlarging the first figure, and closing it again.
  const card = document.querySelector('a.card'), dialog = document.querySelector('dialog');
  const before = card.querySelector('img').getBoundingClientRect().width;
  card.click();
  const after = dialog.querySelector('img').getBoundingClientRect();
  seen.enlarged = dialog.open && after.width >= before && after.width > 0 && dialog.getBoundingClientRect().width <= innerWidth;
  dialog.querySelector('form button:last-child').click();
  seen.closed = !dialog.open;

  parent.postMessage(JSON.stringify(seen), '*');
})();
