"""LogService: convert, call, convert back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from grpc import aio

from dalsegno.v1 import log_service_pb2 as messages
from dalsegno.v1.log_pb2 import LogLine
from dalsegno.v1.log_service_pb2_grpc import LogServiceServicer
from dalsegno_planner.rpc import convert
from dalsegno_planner.rpc.reading import ExecutionReader
from dalsegno_planner.rpc.selecting import selected
from dalsegno_planner.store import logs
from dalsegno_planner.store.logs import LogPlace, StoredLine
from dalsegno_planner.store.pool import Pool
from dalsegno_planner.times import timestamp

_LISTED, _MOST_LISTED = 500, 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class LogServicer(LogServiceServicer):
    """Reads what user code has written."""

    def __init__(self, pool: Pool, reader: ExecutionReader) -> None:
        self._pool = pool
        self._reader = reader

    async def List(
        self,
        request: messages.LogServiceListRequest,
        context: aio.ServicerContext[messages.LogServiceListRequest, messages.LogServiceListResponse],
    ) -> messages.LogServiceListResponse:
        after = _place(request.page_token)
        size = convert.page_size(request.page_size, _LISTED, _MOST_LISTED)
        execution = await self._reader.find(request.execution, request.project)
        async with self._pool.acquire() as connection:
            numbers = None
            if request.selector:
                numbers = await selected(connection, execution.id, request.selector)
            page, following = await logs.list_page(connection, execution.id, after=after, numbers=numbers, limit=size)
        return messages.LogServiceListResponse(
            lines=map(_line_message, page),
            next_page_token=_token(following) if following is not None else "",
        )


def _line_message(line: StoredLine) -> LogLine:
    return LogLine(
        time=timestamp(line.written_at),
        number=line.number,
        invocation_id=line.invocation_id,
        attempt=line.attempt,
        level=line.level,
        logger=line.logger,
        text=line.text,
        left_out=line.left_out,
    )


def _token(place: LogPlace) -> str:
    return convert.page_token(f"{(place.written_at - _EPOCH) // _MICROSECOND}.{place.sequence}")


def _place(token: str) -> LogPlace:
    if not token:
        return logs.START
    moment, _, sequence = convert.page_place(token).partition(".")
    try:
        place = LogPlace(_EPOCH + int(moment) * _MICROSECOND, int(sequence))
    except (ValueError, OverflowError):
        raise convert.invalid_page_token(token) from None
    if not 0 <= place.sequence < 2**63:
        raise convert.invalid_page_token(token)
    return place
