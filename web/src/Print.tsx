import { useEffect, useRef } from "react";
import type { Attention } from "./service";
import { place } from "./words";

/** One word of one caption, and where the model looked as it said it. */
export interface Look {
  text: string;
  word: number;
  attention: Attention;
}

interface Props {
  name: string;
  address: string | null;
  alt: string;
  look: Look | null;
}

/** The picture, and light on it where the model looked. */
export function Print({ name, address, alt, look }: Props) {
  return (
    <figure className="print">
      <div className="mat">
        <div className="light-box">
          {address ? (
            <img src={address} alt={alt || name} />
          ) : (
            <div className="no-picture">{/^https?:/.test(name) ? "The picture comes with its caption" : "This browser cannot show this picture"}</div>
          )}
          {look && <Light attention={look.attention} word={look.word} />}
        </div>
      </div>
      <figcaption className="looked">
        {look && (
          <>
            <b>{look.text}</b>: looked {place(look.attention, look.word)}
          </>
        )}
      </figcaption>
    </figure>
  );
}

const DIMMEST = 0.86;
const PIXELS_PER_CELL = 24;

/** Darkens the picture but for where the weights are high. The grid is the whole picture, squashed: so it is stretched. */
function Light({ attention: { height, width, weights }, word }: { attention: Attention; word: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const own = weights[word];
    const pen = canvas.current?.getContext("2d");
    if (!own || !pen) return;
    const highest = Math.max(...own);
    const cells = new ImageData(width, height);
    own.forEach((weight, cell) => {
      cells.data.set([6, 16, 19, Math.round(255 * DIMMEST * (1 - weight / highest))], 4 * cell);
    });
    const small = Object.assign(document.createElement("canvas"), { width, height });
    small.getContext("2d")?.putImageData(cells, 0, 0);
    const { width: wide, height: high } = pen.canvas;
    pen.clearRect(0, 0, wide, high);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, wide, high);
  }, [height, width, weights, word]);
  return <canvas className="light" ref={canvas} width={width * PIXELS_PER_CELL} height={height * PIXELS_PER_CELL} aria-hidden="true" />;
}
