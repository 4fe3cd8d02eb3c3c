// Small choices that outlive a reload; a browser that refuses to keep them is no error.

export function recall(storage: "localStorage" | "sessionStorage", name: string): string | null {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

export function remember(storage: "localStorage" | "sessionStorage", name: string, value: string): void {
  try {
    window[storage].setItem(name, value);
  } catch {
    // kept until the page is left, by whoever holds it
  }
}
