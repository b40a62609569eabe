from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClassifyRequest(_message.Message):
    __slots__ = ("step", "device", "where", "model", "image", "spare_ms")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SPARE_MS_FIELD_NUMBER: _ClassVar[int]
    step: int
    device: str
    where: str
    model: str
    image: bytes
    spare_ms: float
    def __init__(self, step: _Optional[int] = ..., device: _Optional[str] = ..., where: _Optional[str] = ..., model: _Optional[str] = ..., image: _Optional[bytes] = ..., spare_ms: _Optional[float] = ...) -> None: ...

class ClassifyReply(_message.Message):
    __slots__ = ("step", "node", "model", "classes", "scores", "queue_ms", "compute_ms")
    STEP_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    step: int
    node: str
    model: str
    classes: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    queue_ms: float
    compute_ms: float
    def __init__(self, step: _Optional[int] = ..., node: _Optional[str] = ..., model: _Optional[str] = ..., classes: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., queue_ms: _Optional[float] = ..., compute_ms: _Optional[float] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("step", "device")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    step: int
    device: str
    def __init__(self, step: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("step", "choice", "joint")
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    JOINT_FIELD_NUMBER: _ClassVar[int]
    step: int
    choice: int
    joint: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, step: _Optional[int] = ..., choice: _Optional[int] = ..., joint: _Optional[_Iterable[int]] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("node", "sequence", "sent_at_ms", "cpu", "memory", "delay_ms", "upper_delay_ms", "started", "round_trip_ms")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_MS_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    UPPER_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_MS_FIELD_NUMBER: _ClassVar[int]
    node: str
    sequence: int
    sent_at_ms: float
    cpu: float
    memory: float
    delay_ms: float
    upper_delay_ms: float
    started: int
    round_trip_ms: float
    def __init__(self, node: _Optional[str] = ..., sequence: _Optional[int] = ..., sent_at_ms: _Optional[float] = ..., cpu: _Optional[float] = ..., memory: _Optional[float] = ..., delay_ms: _Optional[float] = ..., upper_delay_ms: _Optional[float] = ..., started: _Optional[int] = ..., round_trip_ms: _Optional[float] = ...) -> None: ...

class StatusList(_message.Message):
    __slots__ = ("statuses",)
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    statuses: _containers.RepeatedCompositeFieldContainer[Status]
    def __init__(self, statuses: _Optional[_Iterable[_Union[Status, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("sent_at_ms", "held_ms")
    SENT_AT_MS_FIELD_NUMBER: _ClassVar[int]
    HELD_MS_FIELD_NUMBER: _ClassVar[int]
    sent_at_ms: float
    held_ms: float
    def __init__(self, sent_at_ms: _Optional[float] = ..., held_ms: _Optional[float] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("step", "device", "choice", "outcome", "response_ms", "decide_ms", "queue_ms", "compute_ms", "statuses")
    STEP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_MS_FIELD_NUMBER: _ClassVar[int]
    DECIDE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    step: int
    device: str
    choice: int
    outcome: str
    response_ms: float
    decide_ms: float
    queue_ms: float
    compute_ms: float
    statuses: _containers.RepeatedCompositeFieldContainer[Status]
    def __init__(self, step: _Optional[int] = ..., device: _Optional[str] = ..., choice: _Optional[int] = ..., outcome: _Optional[str] = ..., response_ms: _Optional[float] = ..., decide_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., compute_ms: _Optional[float] = ..., statuses: _Optional[_Iterable[_Union[Status, _Mapping]]] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("step", "image")
    STEP_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    step: int
    image: bytes
    def __init__(self, step: _Optional[int] = ..., image: _Optional[bytes] = ...) -> None: ...

class InferReply(_message.Message):
    __slots__ = ("report", "classes")
    REPORT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    report: Report
    classes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, report: _Optional[_Union[Report, _Mapping]] = ..., classes: _Optional[_Iterable[int]] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("step", "choices", "session")
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    step: int
    choices: _containers.RepeatedScalarFieldContainer[int]
    session: int
    def __init__(self, step: _Optional[int] = ..., choices: _Optional[_Iterable[int]] = ..., session: _Optional[int] = ...) -> None: ...

class Operator(_message.Message):
    __slots__ = ("session", "name", "hold_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOLD_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    name: str
    hold_ms: float
    def __init__(self, session: _Optional[int] = ..., name: _Optional[str] = ..., hold_ms: _Optional[float] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("session", "number", "choices", "fallbacks", "valid_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    FALLBACKS_FIELD_NUMBER: _ClassVar[int]
    VALID_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    number: int
    choices: _containers.RepeatedScalarFieldContainer[int]
    fallbacks: _containers.RepeatedScalarFieldContainer[int]
    valid_ms: float
    def __init__(self, session: _Optional[int] = ..., number: _Optional[int] = ..., choices: _Optional[_Iterable[int]] = ..., fallbacks: _Optional[_Iterable[int]] = ..., valid_ms: _Optional[float] = ...) -> None: ...

class StandingRequest(_message.Message):
    __slots__ = ("session", "number", "wait_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    number: int
    wait_ms: float
    def __init__(self, session: _Optional[int] = ..., number: _Optional[int] = ..., wait_ms: _Optional[float] = ...) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("device", "session", "number", "wait_ms")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    device: str
    session: int
    number: int
    wait_ms: float
    def __init__(self, device: _Optional[str] = ..., session: _Optional[int] = ..., number: _Optional[int] = ..., wait_ms: _Optional[float] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("session", "number", "choice", "fallback", "valid_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    VALID_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    number: int
    choice: int
    fallback: int
    valid_ms: float
    def __init__(self, session: _Optional[int] = ..., number: _Optional[int] = ..., choice: _Optional[int] = ..., fallback: _Optional[int] = ..., valid_ms: _Optional[float] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("kind", "interval_ms", "jitter_ms", "phase_ms", "burstiness", "stamps_ms", "length_ms", "seed", "patience_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    JITTER_MS_FIELD_NUMBER: _ClassVar[int]
    PHASE_MS_FIELD_NUMBER: _ClassVar[int]
    BURSTINESS_FIELD_NUMBER: _ClassVar[int]
    STAMPS_MS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_MS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_MS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    interval_ms: float
    jitter_ms: float
    phase_ms: float
    burstiness: float
    stamps_ms: _containers.RepeatedScalarFieldContainer[float]
    length_ms: float
    seed: int
    patience_ms: float
    def __init__(self, kind: _Optional[str] = ..., interval_ms: _Optional[float] = ..., jitter_ms: _Optional[float] = ..., phase_ms: _Optional[float] = ..., burstiness: _Optional[float] = ..., stamps_ms: _Optional[_Iterable[float]] = ..., length_ms: _Optional[float] = ..., seed: _Optional[int] = ..., patience_ms: _Optional[float] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("made_ms", "response_ms", "queue_ms", "compute_ms", "choice", "lost")
    MADE_MS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MS_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    made_ms: float
    response_ms: float
    queue_ms: float
    compute_ms: float
    choice: int
    lost: str
    def __init__(self, made_ms: _Optional[float] = ..., response_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., compute_ms: _Optional[float] = ..., choice: _Optional[int] = ..., lost: _Optional[str] = ...) -> None: ...

class RequestsReport(_message.Message):
    __slots__ = ("device", "started", "sequence", "session", "number", "closed", "now_ms", "under_way", "dropped", "made_ms", "done", "asking")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    UNDER_WAY_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    MADE_MS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ASKING_FIELD_NUMBER: _ClassVar[int]
    device: str
    started: int
    sequence: int
    session: int
    number: int
    closed: bool
    now_ms: float
    under_way: int
    dropped: int
    made_ms: _containers.RepeatedScalarFieldContainer[float]
    done: _containers.RepeatedCompositeFieldContainer[Done]
    asking: bool
    def __init__(self, device: _Optional[str] = ..., started: _Optional[int] = ..., sequence: _Optional[int] = ..., session: _Optional[int] = ..., number: _Optional[int] = ..., closed: _Optional[bool] = ..., now_ms: _Optional[float] = ..., under_way: _Optional[int] = ..., dropped: _Optional[int] = ..., made_ms: _Optional[_Iterable[float]] = ..., done: _Optional[_Iterable[_Union[Done, _Mapping]]] = ..., asking: _Optional[bool] = ...) -> None: ...

class ReportMark(_message.Message):
    __slots__ = ("device", "started", "sequence")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    device: str
    started: int
    sequence: int
    def __init__(self, device: _Optional[str] = ..., started: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class CollectRequest(_message.Message):
    __slots__ = ("session", "marks", "wait_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    session: int
    marks: _containers.RepeatedCompositeFieldContainer[ReportMark]
    wait_ms: float
    def __init__(self, session: _Optional[int] = ..., marks: _Optional[_Iterable[_Union[ReportMark, _Mapping]]] = ..., wait_ms: _Optional[float] = ...) -> None: ...

class Collected(_message.Message):
    __slots__ = ("reports",)
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    reports: _containers.RepeatedCompositeFieldContainer[RequestsReport]
    def __init__(self, reports: _Optional[_Iterable[_Union[RequestsReport, _Mapping]]] = ...) -> None: ...

class StateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FleetState(_message.Message):
    __slots__ = ("levels", "statuses", "ages_ms", "reports")
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    AGES_MS_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    levels: _containers.RepeatedScalarFieldContainer[int]
    statuses: _containers.RepeatedCompositeFieldContainer[Status]
    ages_ms: _containers.RepeatedScalarFieldContainer[float]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    def __init__(self, levels: _Optional[_Iterable[int]] = ..., statuses: _Optional[_Iterable[_Union[Status, _Mapping]]] = ..., ages_ms: _Optional[_Iterable[float]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ...) -> None: ...

class Background(_message.Message):
    __slots__ = ("cpu", "memory_mb")
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    cpu: float
    memory_mb: float
    def __init__(self, cpu: _Optional[float] = ..., memory_mb: _Optional[float] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("kind", "delay_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    delay_ms: float
    def __init__(self, kind: _Optional[str] = ..., delay_ms: _Optional[float] = ...) -> None: ...

class LinkSetting(_message.Message):
    __slots__ = ("link", "up_ms", "down_ms", "cut")
    LINK_FIELD_NUMBER: _ClassVar[int]
    UP_MS_FIELD_NUMBER: _ClassVar[int]
    DOWN_MS_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    link: str
    up_ms: float
    down_ms: float
    cut: bool
    def __init__(self, link: _Optional[str] = ..., up_ms: _Optional[float] = ..., down_ms: _Optional[float] = ..., cut: _Optional[bool] = ...) -> None: ...
