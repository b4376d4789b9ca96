// Rasters of a folder: cloud-optimised GeoTIFFs, read by range requests, block by block and from
// the overview that is fine enough. A map tile is drawn by asking for each of its pixels where it
// lies in the raster, so that any CRS that proj4 knows is shown in its place.

const KEPT_BLOCKS = 240;
const STEPS = 16; // positions between are interpolated: 32 pixels at most are taken for straight

const READS = { blockSize: 65536, cacheSize: 200 };

/** Longitude and latitude of a position in web-Mercator tiles of a zoom. */
function lonLat(x, y, zoom) {
  const world = 2 ** zoom;
  const lat = Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / world)));
  return [(x / world) * 360 - 180, (lat * 180) / Math.PI];
}

/** One raster. `grid` is its own, as the facts have it; `crs` a PROJ string. */
export class Raster {
  constructor(url, grid, crs) {
    this.url = url;
    this.grid = grid;
    this.projection = proj4(crs);
    this.opened = null;
    this.blocks = new Map();
  }

  /** Its levels, finest first: {image, width, height, scale: full pixels in one of its own}. */
  levels() {
    this.opened ??= this.open();
    return this.opened;
  }

  async open() {
    const tiff = await GeoTIFF.fromUrl(this.url, { ...READS, allowFullFile: true });
    const found = [];
    for (let i = 0; i < (await tiff.getImageCount()); i += 1) {
      const image = await tiff.getImage(i);
      const [width, height] = [image.getWidth(), image.getHeight()];
      if (i === 0 && (width !== this.grid.width || height !== this.grid.height)) {
        throw new Error(`${this.url} has ${width} x ${height} cells, not ${this.grid.width} x ${this.grid.height}`);
      }
      found.push({ number: i, image, width, height, scale: this.grid.width / width });
    }
    const none = found[0].image.getGDALNoData();
    this.nodata = none === null || Number.isNaN(none) ? null : none;
    return found.sort((a, b) => a.scale - b.scale);
  }

  /** Column and row (of whole cells, 0 at the outer corner) of a place. */
  position(lon, lat) {
    const [x, y] = this.projection.forward([lon, lat]);
    return [(x - this.grid.west) / this.grid.step, (this.grid.north - y) / this.grid.step];
  }

  /** Longitude and latitude of a column and row. */
  place(col, row) {
    const { west, north, step } = this.grid;
    return this.projection.inverse([west + col * step, north - row * step]);
  }

  /** A block of a level: an array of bands. The ones used last are kept. */
  block(level, column, row) {
    const key = `${level.number}/${column}/${row}`;
    let found = this.blocks.get(key);
    if (found) this.blocks.delete(key);
    else {
      const [w, h] = [level.image.getTileWidth(), level.image.getTileHeight()];
      const window = [
        column * w, row * h,
        Math.min((column + 1) * w, level.width), Math.min((row + 1) * h, level.height),
      ];
      found = level.image.readRasters({ window });
      found.catch(() => this.blocks.delete(key)); // asked for again the next time
    }
    this.blocks.set(key, found);
    if (this.blocks.size > KEPT_BLOCKS) this.blocks.delete(this.blocks.keys().next().value);
    return found;
  }

  /** Bands of a window of a level, cut to it: {left, top, width, height, bands}; NaN is no value. */
  async window(level, left, top, right, bottom) {
    [left, top] = [Math.max(left, 0), Math.max(top, 0)];
    [right, bottom] = [Math.min(right, level.width), Math.min(bottom, level.height)];
    const [width, height] = [right - left, bottom - top];
    if (width <= 0 || height <= 0) return null;
    const [w, h] = [level.image.getTileWidth(), level.image.getTileHeight()];
    const jobs = [];
    for (let row = Math.floor(top / h); row * h < bottom; row += 1) {
      for (let column = Math.floor(left / w); column * w < right; column += 1) {
        jobs.push(this.block(level, column, row).then((bands) => ({ column, row, bands })));
      }
    }
    let out = null;
    for (const { column, row, bands } of await Promise.all(jobs)) {
      out ??= bands.map(() => new Float32Array(width * height).fill(NaN));
      const [x0, y0] = [column * w, row * h];
      const [from, to] = [Math.max(left, x0), Math.min(right, x0 + bands.width)];
      for (let y = Math.max(top, y0); y < Math.min(bottom, y0 + bands.height); y += 1) {
        const start = (y - y0) * bands.width + (from - x0);
        for (let b = 0; b < bands.length; b += 1) {
          const line = bands[b].subarray(start, start + to - from);
          out[b].set(line, (y - top) * width + (from - left));
        }
      }
    }
    if (this.nodata !== null) {
      for (const band of out) band.forEach((v, i) => { if (v === this.nodata) band[i] = NaN; });
    }
    return { left, top, width, height, bands: out };
  }

  /** Values of all bands in the cell at a place, or null outside. */
  async values(lon, lat) {
    const [col, row] = this.position(lon, lat).map(Math.floor);
    if (!(col >= 0 && row >= 0 && col < this.grid.width && row < this.grid.height)) return null;
    const [full] = await this.levels();
    const found = await this.window(full, col, row, col + 1, row + 1);
    return { col, row, values: found.bands.map((band) => band[0]) };
  }
}

/** Where the pixels of a map tile lie in a raster: columns and rows, float32 of size * size. */
function pixelPositions(raster, zoom, tileX, tileY, size) {
  const nodes = STEPS + 1;
  const [cols, rows] = [new Float64Array(nodes * nodes), new Float64Array(nodes * nodes)];
  for (let j = 0; j < nodes; j += 1) {
    for (let i = 0; i < nodes; i += 1) {
      const [lon, lat] = lonLat(tileX + i / STEPS, tileY + j / STEPS, zoom);
      [cols[j * nodes + i], rows[j * nodes + i]] = raster.position(lon, lat);
    }
  }
  const [x, y] = [new Float32Array(size * size), new Float32Array(size * size)];
  for (let row = 0; row < size; row += 1) {
    const v = ((row + 0.5) / size) * STEPS;
    const j = Math.min(Math.floor(v), STEPS - 1);
    for (let col = 0; col < size; col += 1) {
      const u = ((col + 0.5) / size) * STEPS;
      const i = Math.min(Math.floor(u), STEPS - 1);
      const [a, b] = [u - i, v - j];
      const at = j * nodes + i;
      const mix = (p) =>
        (1 - b) * ((1 - a) * p[at] + a * p[at + 1]) +
        b * ((1 - a) * p[at + nodes] + a * p[at + nodes + 1]);
      x[row * size + col] = mix(cols);
      y[row * size + col] = mix(rows);
    }
  }
  return { x, y };
}

function reach(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Draw a map tile of rasters that share a grid; `colour(bands, i, k)` gives 0xAABBGGRR, 0 = none. */
export async function drawTile(rasters, zoom, tileX, tileY, size, colour) {
  const [first] = rasters;
  const { x, y } = pixelPositions(first, zoom, tileX, tileY, size);
  const [[left, right], [top, bottom]] = [reach(x), reach(y)];
  const image = new ImageData(size, size);
  const { width, height } = first.grid;
  if (right < 0 || bottom < 0 || left >= width || top >= height) return image;
  const cells = Math.min(right - left, bottom - top) / size; // full cells in a pixel of the screen
  const read = await Promise.all(rasters.map(async (raster) => {
    const levels = await raster.levels();
    const level = levels.findLast((one) => one.scale <= Math.max(cells * 1.1, 1)) ?? levels[0];
    const cut = [left, top, right + level.scale, bottom + level.scale].map((v) => Math.floor(v / level.scale));
    return { level, ...(await raster.window(level, ...cut)) };
  }));
  const shared = read.every((one) => one.level.scale === read[0].level.scale);
  if (!shared) throw new Error(`${first.url}: its overviews are not those of the other raster`);
  const { level, left: x0, top: y0, width: w, height: h } = read[0];
  if (!w) return image;
  const pixels = new Uint32Array(image.data.buffer);
  const bands = read.map((one) => one.bands);
  const vertical = height / level.height;
  for (let k = 0; k < pixels.length; k += 1) {
    const col = Math.floor(x[k] / level.scale) - x0;
    const row = Math.floor(y[k] / vertical) - y0;
    if (col >= 0 && row >= 0 && col < w && row < h) pixels[k] = colour(bands, row * w + col);
  }
  return image;
}
