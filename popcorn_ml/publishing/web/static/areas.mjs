// The people of a drawn area and how far the sum may be off: pixels whose centre lies inside, cut by
// census units, as popcorn_ml.intervals does it (its `law` and `parts` say why). Very large areas
// are summed by whole hectares, and the answer says so. The law's constants come from `law.json`.

export const MOST_PIXELS = 40e6;
const TILE = 640; // pixels; whole hectares
const SIDE = 10; // pixels in a hectare's side

/** Columns that each row of a window has inside rings (even-odd): pairs from, to (not included). */
export function spans(rings, row) {
  const y = row + 0.5;
  const cuts = [];
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 1) {
      const [x0, y0] = ring[i];
      const [x1, y1] = ring[(i + 1) % ring.length];
      if ((y0 <= y) !== (y1 <= y)) cuts.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0));
    }
  }
  cuts.sort((a, b) => a - b);
  const found = [];
  for (let i = 0; i + 1 < cuts.length; i += 2) {
    const [from, to] = [Math.ceil(cuts[i] - 0.5), Math.ceil(cuts[i + 1] - 0.5)];
    if (to > from) found.push([from, to]);
  }
  return found;
}

function boundsOf(rings, grid) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of rings.flat()) {
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  return {
    left: Math.max(Math.floor(left), 0), top: Math.max(Math.floor(top), 0),
    right: Math.min(Math.ceil(right), grid.width), bottom: Math.min(Math.ceil(bottom), grid.height),
  };
}

/** Rings of longitude and latitude as columns and rows of a raster. */
const onGrid = (raster, rings) => rings.map((ring) => ring.map(([lon, lat]) => raster.position(lon, lat)));

/** Hectares of a row of cells. */
const areaOf = (map, row) => (Array.isArray(map.cell_ha) ? map.cell_ha[row] : map.cell_ha);

/** What lies inside: {people, cells, parts: unit -> {people, crowding}, whole: whether by hectares}. */
export async function measure(map, rasters, rings, progress = () => {}) {
  const { population, population_pixels: pixels, units } = rasters;
  if (pixels) {
    const outline = onGrid(pixels, rings);
    const b = boundsOf(outline, pixels.grid);
    if ((b.right - b.left) * (b.bottom - b.top) <= MOST_PIXELS) return byPixels(map, pixels, units, outline, b, progress);
  }
  return byCells(map, population, units, onGrid(population, rings), progress);
}

function adder() {
  const parts = new Map();
  const found = { people: 0, cells: 0, parts };
  return {
    found,
    add(unit, people, crowding) {
      found.people += people;
      found.cells += 1;
      const part = parts.get(unit);
      if (part) {
        part.people += people;
        part.crowding += crowding;
      } else parts.set(unit, { people, crowding });
    },
  };
}

async function byPixels(map, raster, units, outline, bounds, progress) {
  const { found, add } = adder();
  const [level] = await raster.levels();
  const [unitLevel] = units ? await units.levels() : [];
  const start = (v) => Math.floor(v / TILE) * TILE;
  for (let top = start(bounds.top); top < bounds.bottom; top += TILE) {
    for (let left = start(bounds.left); left < bounds.right; left += TILE) {
      if (!reached(outline, left, top)) continue;
      const [read, numbers] = await Promise.all([
        raster.window(level, left, top, left + TILE, top + TILE),
        units ? units.window(unitLevel, left, top, left + TILE, top + TILE) : null,
      ]);
      const { width, height, bands: [people] } = read;
      const across = Math.ceil(width / SIDE);
      const density = densities(map, people, width, height, across, top);
      for (let row = 0; row < height; row += 1) {
        for (const [from, to] of spans(outline, top + row)) {
          for (let col = Math.max(from - left, 0); col < Math.min(to - left, width); col += 1) {
            const at = row * width + col;
            const value = people[at];
            if (Number.isNaN(value)) continue;
            const cell = Math.floor(row / SIDE) * across + Math.floor(col / SIDE);
            add(numbers ? numbers.bands[0][at] || 0 : 0, value, value * density[cell]);
          }
        }
      }
    }
    progress((top + TILE - bounds.top) / (bounds.bottom - bounds.top));
  }
  return { ...found, whole: false };
}

/** Whether any pixel of a tile lies inside: what does not is not read. */
function reached(outline, left, top) {
  for (let row = top; row < top + TILE; row += 1) {
    if (spans(outline, row).some(([from, to]) => from < left + TILE && to > left)) return true;
  }
  return false;
}

/** People per hectare of each cell of a window that begins with whole cells. */
function densities(map, people, width, height, across, top) {
  const sums = new Float64Array(across * Math.ceil(height / SIDE));
  for (let row = 0; row < height; row += 1) {
    for (let col = 0; col < width; col += 1) {
      const value = people[row * width + col];
      if (!Number.isNaN(value)) sums[Math.floor(row / SIDE) * across + Math.floor(col / SIDE)] += value;
    }
  }
  return sums.map((sum, k) => sum / areaOf(map, top / SIDE + Math.floor(k / across)));
}

async function byCells(map, raster, units, outline, progress) {
  const { found, add } = adder();
  const bounds = boundsOf(outline, raster.grid);
  const [level] = await raster.levels();
  const coarse = units ? (await units.levels()).findLast((one) => one.scale <= SIDE) : null;
  for (let top = bounds.top; top < bounds.bottom; top += 256) {
    const bottom = Math.min(top + 256, bounds.bottom);
    const read = await raster.window(level, bounds.left, top, bounds.right, bottom);
    const at = (v) => Math.floor((v * SIDE + SIDE / 2) / coarse.scale);
    const numbers = units && await units.window(coarse, at(bounds.left), at(top), at(bounds.right) + 1, at(bottom) + 1);
    for (let row = top; row < bottom; row += 1) {
      for (const [from, to] of spans(outline, row)) {
        for (let col = Math.max(from, bounds.left); col < Math.min(to, bounds.right); col += 1) {
          const value = read.bands[0][(row - top) * read.width + (col - bounds.left)];
          if (Number.isNaN(value)) continue;
          const unit = numbers ? numbers.bands[0][(at(row) - numbers.top) * numbers.width + at(col) - numbers.left] : 0;
          add(unit || 0, value, (value * value) / areaOf(map, row));
        }
      }
    }
    progress((bottom - bounds.top) / (bounds.bottom - bounds.top));
  }
  return { ...found, whole: true };
}

/** Variance of a sum in a map that is not adjusted. */
export function variance(law, people, crowding, largest = Infinity) {
  if (!(people > 0)) return 0;
  const density = crowding / people;
  const extent = density > 0 ? people / density : 0;
  const share = law.dense ** 2 + ((law.sparse * law.sparse_below) / (law.sparse_below + density)) ** 2;
  const evened = extent > 0 ? Math.min(extent, largest) ** -law.evening : 0;
  return law.chance * people + share * people ** 2 * evened;
}

/** Variance of a part of a unit whose people are known. */
export function partVariance(law, people, crowding, unit) {
  const raw = unit.people > 0 ? people / unit.people : 0;
  const share = raw > 1 - law.whole ? 1 : Math.min(Math.max(raw, 0), 1);
  if (share <= 0 || share >= 1) return 0;
  const rest = Math.max(unit.people - people, 0);
  const found = (1 - share) * variance(law, people, crowding)
    + share * variance(law, rest, Math.max(unit.crowding - crowding, 0))
    - share * (1 - share) * variance(law, unit.people, unit.crowding);
  return Math.max(found, 0);
}

/** Variance of a measured area in the adjusted map; NaN where nothing is known of a part's. */
export function adjustedVariance(model, parts, units) {
  let sum = 0;
  for (const [number, part] of parts) {
    if (part.people === 0) continue;
    const unit = units[number - 1];
    if (!unit) return NaN;
    const how = unit.placed_by ?? 'model';
    if (how === 'uncounted') sum += variance(model.law, part.people, part.crowding, model.basis.largest_ha);
    else if (part.people >= unit.people * (1 - model.law.whole)) sum += 0;
    else if (how === 'model') sum += partVariance(model.law, part.people, part.crowding, unit);
    else return NaN;
  }
  return sum;
}

function interpolated(table, x) {
  const { first, last, ratios } = table;
  const at = Math.min(Math.max(((x - first) / (last - first)) * (ratios.length - 1), 0), ratios.length - 1);
  const i = Math.min(Math.floor(at), ratios.length - 2);
  return ratios[i] + (at - i) * (ratios[i + 1] - ratios[i]);
}

/** The quantiles p2.5, p10, p90, p97.5 of a sum. `tables`: of the gamma distribution, see `law.py`. */
export function quantiles(model, tables, people, spread2) {
  const found = tables.map((table) => {
    const { below, level } = table;
    const spread = model.widths[level] * Math.sqrt(spread2);
    const shape = 2 * (Math.log(people) - Math.log(spread));
    const ratio = people > 0 && spread > 0 ? interpolated(table, shape) : 1;
    const half = Math.min(model.law.half_a_person, spread);
    if (below < 0.5) return Math.max(Math.min(people * ratio, people) - half, 0);
    return Math.max(people * ratio, people) + half;
  });
  found[0] = Math.min(found[0], found[1]);
  found[3] = Math.max(found[3], found[2]);
  return found;
}
