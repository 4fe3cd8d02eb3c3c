"""What harms the process that it runs in; imports little, for children start with it again and again."""

import os
import re

from captioning.drawings.making import Order, draw


def act(what: str) -> object:
    match what:
        case "abort":
            os.abort()
        case "leave":
            os._exit(7)
        case "loop":  # in native code that never lets other threads run
            return re.match("(a*)*b", "a" * 60)
        case "eat":
            return len(bytearray(8 << 30))
        case "refuse":
            raise ValueError("no such molecule")
        case "print":
            print("to stdout")
    return os.getpid()


def hostile_draw(order: Order) -> bytes:
    """Draw, but crash, hang or fail on three molecules, which stand for those molecules on which RDKit does."""
    match order.smiles:
        case "CCCCCO":
            os.abort()
        case "CCCCCS":
            re.match("(a*)*b", "a" * 60)
        case "CCCCCF":
            raise RuntimeError("Pre-condition Violation")
    return draw(order)
