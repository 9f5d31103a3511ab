// Colors of maps: viridis and magma, which are even to the eye, and red and blue around zero. After matplotlib.

const STOPS = {
  viridis:
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
  magma:
    "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf",
  signed:
    "053061 175290 2a71b2 3f8ec0 6bacd1 9bc9e0 c2ddec e0ecf3 f7f6f6 fbe5d8 fbccb4 f5aa89 e48066 d05548 ba2832 930e26 67001f",
};

/** 256 colors of a map, one after the other: red, green, blue. */
export const TABLES = Object.fromEntries(Object.entries(STOPS).map(([name, text]) => [name, table(text.split(" "))]));

function table(stops) {
  const parts = stops.map((stop) => [0, 2, 4].map((at) => Number.parseInt(stop.slice(at, at + 2), 16)));
  const result = new Uint8Array(3 * 256);
  for (let value = 0; value < 256; value++) {
    const place = (value / 255) * (parts.length - 1);
    const low = Math.min(Math.floor(place), parts.length - 2);
    for (let color = 0; color < 3; color++) {
      result[3 * value + color] = parts[low][color] + (place - low) * (parts[low + 1][color] - parts[low][color]);
    }
  }
  return result;
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** Black or white, whichever is read better on a color. */
export function inkOn([red, green, blue]) {
  const [r, g, b] = [red, green, blue].map((part) => (part / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.3 ? "#fff" : "#1e1e1e";
}

/** The color itself, then lighter and darker ones in turn. */
export function shade(color, turn) {
  const [towards, share] = [[0, 0], [255, 0.35], [0, 0.35], [255, 0.6], [0, 0.55]][turn % 5];
  return color.map((part) => Math.round((1 - share) * part + share * towards));
}
