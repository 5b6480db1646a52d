/** Lengths as the server counts them. */

/** Bytes of `text` in UTF-8; a lone surrogate counts three, like the replacement character it is sent as. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (const char of text) {
    const point = char.codePointAt(0) as number;
    bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
  }
  return bytes;
}

/** Characters as people and the server count them: code points, not UTF-16 units. */
export function charLength(text: string): number {
  let chars = 0;
  for (const _ of text) chars += 1;
  return chars;
}
