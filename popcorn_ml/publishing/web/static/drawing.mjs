// An area drawn on the map, corner by corner, or read from a GeoJSON file.

const MOST_POINTS = 200000;

/** Rings of all polygons in GeoJSON, of [longitude, latitude]. */
export function ringsOf(json) {
  const found = [];
  const walk = (one) => {
    if (!one || typeof one !== 'object') return;
    if (one.type === 'Polygon') found.push(...one.coordinates);
    else if (one.type === 'MultiPolygon') found.push(...one.coordinates.flat());
    else for (const part of [one.geometry, ...(one.features ?? []), ...(one.geometries ?? [])]) walk(part);
  };
  walk(json);
  const points = found.flat();
  const right = (p) => Array.isArray(p) && Math.abs(p[0]) <= 360 && Math.abs(p[1]) <= 90;
  if (!points.length) throw new Error('the file holds no polygon; expected GeoJSON');
  if (points.length > MOST_POINTS) throw new Error(`the file holds ${points.length} points; at most ${MOST_POINTS} are read`);
  if (!points.every(right)) throw new Error('its coordinates are no longitudes and latitudes');
  return found.map((ring) => ring.map(([lon, lat]) => [lon, lat]));
}

export class Drawing {
  constructor(parts) {
    Object.assign(this, parts, { active: false, points: [], rings: [], panes: [] });
    this.draw.onclick = () => (this.active ? this.stop() : this.start());
    this.done.onclick = () => this.close();
    this.clear.onclick = () => this.stop();
  }

  addTo(pane) {
    this.panes.push(pane);
    pane.map.addSource('drawn', { type: 'geojson', data: this.shape() });
    pane.map.addLayer({ id: 'drawn-fill', type: 'fill', source: 'drawn', filter: ['==', ['geometry-type'], 'Polygon'], paint: { 'fill-color': '#0a4f8f', 'fill-opacity': 0.15 } });
    pane.map.addLayer({ id: 'drawn-line', type: 'line', source: 'drawn', paint: { 'line-color': '#0a4f8f', 'line-width': 2.5 } });
    pane.map.addLayer({ id: 'drawn-points', type: 'circle', source: 'drawn', filter: ['==', ['geometry-type'], 'Point'], paint: { 'circle-color': '#0a4f8f', 'circle-radius': 4 } });
    pane.map.on('dblclick', (event) => {
      if (!this.active) return;
      event.preventDefault();
      this.close();
    });
  }

  start() {
    this.stop();
    this.active = true;
    this.draw.setAttribute('aria-pressed', 'true');
    this.done.hidden = this.clear.hidden = false;
    this.told = this.hint.textContent;
    this.hint.textContent = 'Click the corners, then "Close it" or double-click. With the keyboard: Enter sets a corner at the middle of the map, Escape gives up.';
    this.done.disabled = true;
  }

  add(point) {
    const last = this.points.at(-1);
    if (last && Math.hypot(last[0] - point[0], last[1] - point[1]) < 1e-9) return;
    this.points.push(point);
    this.done.disabled = this.points.length < 3;
    this.refresh();
  }

  close() {
    if (this.points.length < 3) return;
    this.rings = [this.points];
    this.rest();
    this.refresh();
    this.finished(this.rings);
  }

  show(rings) {
    this.stop();
    this.rings = rings;
    this.clear.hidden = false;
    this.refresh();
  }

  rest() {
    this.active = false;
    this.points = [];
    this.draw.setAttribute('aria-pressed', 'false');
    this.done.hidden = true;
    if (this.told) this.hint.textContent = this.told;
  }

  stop() {
    const had = this.active || this.rings.length;
    this.rest();
    this.rings = [];
    this.clear.hidden = true;
    this.refresh();
    if (had) this.cleared();
  }

  shape() {
    const feature = (type, coordinates) => ({ type: 'Feature', properties: {}, geometry: { type, coordinates } });
    const features = this.rings.map((ring) => feature('Polygon', [[...ring, ring[0]]]));
    if (this.points.length > 1) features.push(feature('LineString', this.points));
    features.push(...this.points.map((point) => feature('Point', point)));
    return { type: 'FeatureCollection', features };
  }

  refresh() {
    for (const pane of this.panes) pane.map.getSource('drawn').setData(this.shape());
  }
}
