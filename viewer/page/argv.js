// A command line as people write it, and the list of arguments that it means. No shell is involved: quotes only. Pure.

/** @param {string} text @returns {{words: string[], wrong: string | null}} */
export function split(text) {
  /** @type {string[]} */
  const words = [];
  let word = /** @type {string | null} */ (null);
  let quote = "";
  for (let i = 0; i < text.length; i += 1) {
    const letter = text[i];
    if (quote === "'") {
      if (letter === "'") quote = "";
      else word += letter;
    } else if (letter === "\\" && i + 1 < text.length && (quote === "" || /["\\$`]/.test(text[i + 1]))) {
      i += 1;
      word = (word ?? "") + text[i];
    } else if (quote === '"') {
      if (letter === '"') quote = "";
      else word += letter;
    } else if (letter === "'" || letter === '"') {
      quote = letter;
      word ??= "";
    } else if (/\s/.test(letter)) {
      if (word !== null) words.push(word);
      word = null;
    } else {
      word = (word ?? "") + letter;
    }
  }
  if (word !== null) words.push(word);
  return { words, wrong: quote ? `A quote (${quote}) is not closed.` : null };
}

/** @param {string[]} words */
export function join(words) {
  return words.map((word) => (/^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replace(/'/g, "'\\''")}'`)).join(" ");
}
