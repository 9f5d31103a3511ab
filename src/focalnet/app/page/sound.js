// Sounds: from the bytes of a file to the waveform that the network takes, and to a spectrogram to look at.

import { TABLES } from "./colors.js";
import { contentOf } from "./decode.js";
import { Refused } from "./files.js";
import { enlarged } from "./interpolate.js";
import { resize } from "./resize.js";

const MOST_COLUMNS = 512; // of a spectrogram that is drawn

/**
 * The waveform of a file, Float32Array: channels averaged, at `rate` samples per second. Only pages can do this, and no
 * workers.
 * @throws {Refused} where it is no sound that can be read.
 */
export async function decodeSound(blob, name, rate) {
  const bytes = await contentOf(blob, name);
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.buffer);
  } catch {
    throw new Refused(`${name} cannot be decoded as a sound: it is damaged, or this browser does not know its kind.`);
  }
  const channels = Array.from({ length: sound.numberOfChannels }, (_, channel) => sound.getChannelData(channel));
  const wave = channels[0].map((_, at) => channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length);
  if (!wave.length) throw new Refused(`${name} holds no samples: choose another file.`);
  if (!wave.every(Number.isFinite)) throw new Refused(`${name} holds samples that are no numbers: choose another file.`);
  return wave;
}

/** The middle of a longer waveform, a shorter one followed by silence, as the network was trained. */
export function prepareSound(wave, model) {
  const length = model.preprocessing.seconds ? model.shape[0] : wave.length;
  const start = Math.trunc(Math.max(wave.length - length, 0) / 2);
  const data = new Float32Array(length);
  data.set(wave.subarray(start, start + length));
  return { data, dims: [1, length] };
}

/** A waveform as an image: its spectrogram, time from left to right and low frequencies at the bottom. */
export function spectrogram(wave, how) {
  const { height, width, data: values } = levels(wave, how);
  const loudest = values.reduce((most, value) => Math.max(most, value), 0) || 1;
  const data = new Uint8Array(3 * values.length);
  values.forEach((value, at) => {
    const color = 3 * Math.round((255 * value) / loudest);
    data.set(TABLES.magma.subarray(color, color + 3), 3 * at);
  });
  return resize({ height, width, channels: 3, data }, how.input_size, 2 * how.input_size, "bilinear", "torch");
}

/** log(1 + |STFT|) of a waveform over its largest sample, as the network sees it, turned; frames of long ones are left out. */
export function levels(wave, { n_fft, win_length, hop_length }) {
  const largest = wave.reduce((most, sample) => Math.max(most, sample), 0) || 1;
  const frames = Math.floor(wave.length / hop_length) + 1;
  const [height, width] = [Math.floor(n_fft / 2) + 1, Math.min(frames, MOST_COLUMNS)];
  const before = Math.floor(n_fft / 2) - Math.floor((n_fft - win_length) / 2); // of the window, the middle
  const angles = Array.from({ length: n_fft }, (_, at) => (2 * Math.PI * at) / n_fft);
  const [cosines, sines] = [Math.cos, Math.sin].map((waving) => Float64Array.from(angles, waving));
  const hamming = Float64Array.from({ length: win_length }, (_, at) => 0.54 - 0.46 * Math.cos((2 * Math.PI * at) / win_length));
  const data = new Float32Array(height * width);
  for (let x = 0; x < width; x++) {
    const first = Math.floor((x * frames) / width) * hop_length - before;
    const heard = hamming.map((share, at) => (share * (wave[first + at] ?? 0)) / largest);
    for (let frequency = 0; frequency < height; frequency++) {
      let [real, imaginary] = [0, 0];
      for (let at = 0, turn = 0; at < win_length; at++, turn = (turn + frequency) % n_fft) {
        real += heard[at] * cosines[turn];
        imaginary += heard[at] * sines[turn];
      }
      data[(height - 1 - frequency) * width + x] = Math.log1p(Math.hypot(real, imaginary));
    }
  }
  return { height, width, data };
}

/** A map whose rows are times and whose columns are frequencies, as a spectrogram is drawn. */
export function upright({ data, dims }) {
  const [times, frequencies] = dims.slice(-2);
  const turned = new Float32Array(data.length);
  for (let start = 0; start < data.length; start += times * frequencies) {
    for (let time = 0; time < times; time++) {
      for (let frequency = 0; frequency < frequencies; frequency++) {
        const row = frequencies - 1 - frequency;
        turned[start + row * times + time] = data[start + time * frequencies + frequency];
      }
    }
  }
  return { data: turned, dims: [...dims.slice(0, -2), frequencies, times] };
}

/**
 * Where a network listens: the cells at which a modulator is longest, as `modulation.strongest` finds them.
 * @param modulator its length, {data, dims: [1, h, w]}.
 * @param size [height, width] of the spectrogram.
 * @returns Uint8Array, 1 where the cell is in the upper `share`.
 */
export function strongest({ data, dims }, size, share = 0.1) {
  const lengths = enlarged(data, 0, dims.slice(-2), size);
  const sorted = lengths.slice().sort();
  const place = (1 - share) * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  const least = Math.fround(low + (high - low) * (place % 1));
  return Uint8Array.from(lengths, (length) => Number(length >= least));
}

/** A spectrogram that has its colors where `mask` is 1, and is grey elsewhere. */
export function kept(image, mask) {
  const data = image.data.map((value, at, colors) => {
    const cell = Math.floor(at / 3);
    if (mask[cell]) return value;
    const [red, green, blue] = colors.subarray(3 * cell, 3 * cell + 3);
    return Math.floor(((red + green + blue) / 3) * 0.7 + 60);
  });
  return { ...image, data };
}
