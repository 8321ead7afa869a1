"""The demo provider's answers on their way out: paced, broken off, held back, or spoiled in the middle."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cli.demo_bodies import Answer, error_body
from cli.demo_desk import Desk, Entry
from cli.demo_faults import NOW, Step
from cli.demo_stream import BROKEN, DONE, event
from cli.demo_texts import next_id
from cli.demo_wire import Headers, Wire

BREAKS = ("cut", "stall", "reset", "hold")


@dataclass(slots=True)
class Delivery:
    """One answer on its way; raises ClientGone when the client hangs up first."""

    desk: Desk
    wire: Wire
    entry: Entry
    answer: Answer
    step: Step
    written: int = 0

    async def run(self) -> None:
        """Send it as the step says."""
        step = self.step
        await self.wire.start(self.answer.status, self._headers())
        # A whole answer has no place for an error event.
        if step.fault in BREAKS or (step.fault == "stream_error" and not self.answer.streamed):
            await self._break_off()
        elif step.fault == "drip":
            body, size = b"".join(self.answer.pieces), step.size_bytes
            await self._finish([body[at : at + size] for at in range(0, len(body), size)], step.every_s)
        else:
            await self._finish(self._spoiled() if self.answer.streamed else self.answer.pieces, self._pace())

    def _spoiled(self) -> list[bytes]:
        """The events of a stream with the fault in them."""
        before, after = parted(self.answer, self.step.chunks)
        match self.step.fault:
            case "stream_error":
                body = self.step.body
                return [
                    *before,
                    event(error_body(self.step.status, "The server had an error.") if body is None else body),
                ]
            case "bad_chunk":
                return [*before, BROKEN, *after]
            case "duplicate":
                return [*before, *before[-1:], *after]
            case "no_done":
                return [piece for piece in self.answer.pieces if piece is not DONE]
        return self.answer.pieces

    async def _break_off(self) -> None:
        before, after = parted(self.answer, self.step.chunks)
        await self._write(before, self._pace())
        if self.step.fault == "hold":
            await self._hold()
            await self._finish(after, self._pace())
            return
        if self.step.fault == "stall":
            await self.wire.gone()
        if self.step.fault == "reset":
            await self.wire.reset()
        else:
            await self.wire.cut()
        self.desk.close(self.entry, "cut")

    async def _hold(self) -> None:
        limit = self.desk.keep(self.entry)
        try:
            await self.wire.pause(limit)
        finally:
            self.desk.let_go(self.entry, limit)

    def _pace(self) -> float:
        """Seconds between two chunks; a whole answer is one."""
        if not self.answer.streamed:
            return 0
        return self.desk.pace.chunk_seconds if self.step.stream.every_s is None else self.step.stream.every_s

    async def _finish(self, pieces: Sequence[bytes], every_s: float) -> None:
        """Send these and the end of the answer, the last piece and the end at once."""
        *most, last = pieces or [b""]
        await self._write(most, every_s)
        await self._piece(last, every_s, last=True)
        self.desk.close(self.entry, "answered")

    async def _write(self, pieces: Sequence[bytes], every_s: float) -> None:
        for piece in pieces:
            await self._piece(piece, every_s)

    async def _piece(self, piece: bytes, every_s: float, *, last: bool = False) -> None:
        if every_s and self.written:
            await self.wire.pause(asyncio.timeout(every_s))
        if self.step.say is not None:
            piece = piece.replace(NOW.encode(), b"%.6f" % time.time())
        await self.wire.write(piece, last=last)
        self.written += 1
        self.entry.chunks = self.written if self.answer.streamed else 0

    def _headers(self) -> Headers:
        took_ms = int((time.time() - self.entry.arrived_at) * 1000)
        headers = [
            (b"content-type", self.answer.content_type.encode()),
            (b"x-request-id", next_id("req_").encode()),
            (b"openai-processing-ms", b"%d" % took_ms),
        ]
        if not self.answer.streamed:
            headers.append((b"content-length", b"%d" % len(self.answer.pieces[0])))
        return headers + [(name.lower().encode(), value.encode()) for name, value in self.answer.headers.items()]


def parted(answer: Answer, chunks: int | None) -> tuple[list[bytes], list[bytes]]:
    """A stream before and after so many chunks, a whole answer in two halves.

    chunks: None is half of them, a negative number counts from the end. Something is always left for `after`.
    """
    pieces = answer.pieces
    if not answer.streamed:
        half = len(pieces[0]) // 2
        return [pieces[0][:half]], [pieces[0][half:]]
    at = len(pieces) // 2 if chunks is None else chunks
    at = max(0, len(pieces) + at) if at < 0 else min(at, len(pieces) - 1)
    return pieces[:at], pieces[at:]
