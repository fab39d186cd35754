from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DTYPE_UNSPECIFIED: _ClassVar[DType]
    FLOAT32: _ClassVar[DType]
    FLOAT64: _ClassVar[DType]
    FLOAT16: _ClassVar[DType]
    BFLOAT16: _ClassVar[DType]
    INT8: _ClassVar[DType]
    INT16: _ClassVar[DType]
    INT32: _ClassVar[DType]
    INT64: _ClassVar[DType]
    UINT8: _ClassVar[DType]
    BOOL: _ClassVar[DType]

class ArrayKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARAM: _ClassVar[ArrayKind]
    BUFFER: _ClassVar[ArrayKind]
    COUNTER: _ClassVar[ArrayKind]

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORK: _ClassVar[TaskKind]
    EVALUATE: _ClassVar[TaskKind]
    PREPARE: _ClassVar[TaskKind]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCEPTED: _ClassVar[Verdict]
    LATE: _ClassVar[Verdict]
    REFUSED: _ClassVar[Verdict]

class Decline(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SKIPPED: _ClassVar[Decline]
    FAILED: _ClassVar[Decline]
    OTHER_MEMORY: _ClassVar[Decline]
    CANNOT: _ClassVar[Decline]
    ENDING: _ClassVar[Decline]
DTYPE_UNSPECIFIED: DType
FLOAT32: DType
FLOAT64: DType
FLOAT16: DType
BFLOAT16: DType
INT8: DType
INT16: DType
INT32: DType
INT64: DType
UINT8: DType
BOOL: DType
PARAM: ArrayKind
BUFFER: ArrayKind
COUNTER: ArrayKind
WORK: TaskKind
EVALUATE: TaskKind
PREPARE: TaskKind
ACCEPTED: Verdict
LATE: Verdict
REFUSED: Verdict
SKIPPED: Decline
FAILED: Decline
OTHER_MEMORY: Decline
CANNOT: Decline
ENDING: Decline

class Array(_message.Message):
    __slots__ = ("shape", "dtype", "wire")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    WIRE_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: DType
    wire: DType
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[_Union[DType, str]] = ..., wire: _Optional[_Union[DType, str]] = ...) -> None: ...

class NamedArray(_message.Message):
    __slots__ = ("name", "array", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    array: Array
    kind: ArrayKind
    def __init__(self, name: _Optional[str] = ..., array: _Optional[_Union[Array, _Mapping]] = ..., kind: _Optional[_Union[ArrayKind, str]] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ("arrays",)
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    arrays: _containers.RepeatedCompositeFieldContainer[NamedArray]
    def __init__(self, arrays: _Optional[_Iterable[_Union[NamedArray, _Mapping]]] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("context",)
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    context: Array
    def __init__(self, context: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...

class Prototypes(_message.Message):
    __slots__ = ("class_id", "count", "vectors")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    class_id: _containers.RepeatedScalarFieldContainer[int]
    count: _containers.RepeatedScalarFieldContainer[int]
    vectors: Array
    def __init__(self, class_id: _Optional[_Iterable[int]] = ..., count: _Optional[_Iterable[int]] = ..., vectors: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...

class ExpertWeights(_message.Message):
    __slots__ = ("node", "weights")
    NODE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    weights: Weights
    def __init__(self, node: _Optional[str] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ...) -> None: ...

class ParameterMask(_message.Message):
    __slots__ = ("bits",)
    BITS_FIELD_NUMBER: _ClassVar[int]
    bits: _containers.RepeatedCompositeFieldContainer[NamedArray]
    def __init__(self, bits: _Optional[_Iterable[_Union[NamedArray, _Mapping]]] = ...) -> None: ...

class SparseTensor(_message.Message):
    __slots__ = ("name", "shape", "indices", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    indices: Array
    values: Array
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., indices: _Optional[_Union[Array, _Mapping]] = ..., values: _Optional[_Union[Array, _Mapping]] = ...) -> None: ...

class SparseWeights(_message.Message):
    __slots__ = ("tensors",)
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    tensors: _containers.RepeatedCompositeFieldContainer[SparseTensor]
    def __init__(self, tensors: _Optional[_Iterable[_Union[SparseTensor, _Mapping]]] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("media_type", "size")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    size: int
    def __init__(self, media_type: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("weights", "prompt", "prototypes", "expert", "mask", "sparse", "blob")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROTOTYPES_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    weights: Weights
    prompt: Prompt
    prototypes: Prototypes
    expert: ExpertWeights
    mask: ParameterMask
    sparse: SparseWeights
    blob: Blob
    def __init__(self, weights: _Optional[_Union[Weights, _Mapping]] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., prototypes: _Optional[_Union[Prototypes, _Mapping]] = ..., expert: _Optional[_Union[ExpertWeights, _Mapping]] = ..., mask: _Optional[_Union[ParameterMask, _Mapping]] = ..., sparse: _Optional[_Union[SparseWeights, _Mapping]] = ..., blob: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class PayloadRef(_message.Message):
    __slots__ = ("sha256", "size")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size: int
    def __init__(self, sha256: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("none", "boolean", "integer", "real", "text", "list", "map", "fields", "payload", "experts")
    NONE_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    none: bool
    boolean: bool
    integer: int
    real: float
    text: str
    list: List
    map: Map
    fields: Fields
    payload: int
    experts: Experts
    def __init__(self, none: bool = ..., boolean: bool = ..., integer: _Optional[int] = ..., real: _Optional[float] = ..., text: _Optional[str] = ..., list: _Optional[_Union[List, _Mapping]] = ..., map: _Optional[_Union[Map, _Mapping]] = ..., fields: _Optional[_Union[Fields, _Mapping]] = ..., payload: _Optional[int] = ..., experts: _Optional[_Union[Experts, _Mapping]] = ...) -> None: ...

class List(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: Value
    def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Map(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class Fields(_message.Message):
    __slots__ = ("type", "fields")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    type: str
    fields: _containers.RepeatedCompositeFieldContainer[Field]
    def __init__(self, type: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[Field, _Mapping]]] = ...) -> None: ...

class Experts(_message.Message):
    __slots__ = ("payloads",)
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    payloads: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, payloads: _Optional[_Iterable[int]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("schema", "fields", "payloads")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    fields: Fields
    payloads: _containers.RepeatedCompositeFieldContainer[PayloadRef]
    def __init__(self, schema: _Optional[bytes] = ..., fields: _Optional[_Union[Fields, _Mapping]] = ..., payloads: _Optional[_Iterable[_Union[PayloadRef, _Mapping]]] = ...) -> None: ...

class TaskKey(_message.Message):
    __slots__ = ("run", "step", "agent", "kind")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    run: str
    step: int
    agent: str
    kind: TaskKind
    def __init__(self, run: _Optional[str] = ..., step: _Optional[int] = ..., agent: _Optional[str] = ..., kind: _Optional[_Union[TaskKind, str]] = ...) -> None: ...

class RecordHeader(_message.Message):
    __slots__ = ("key", "record", "report", "evaluations")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    record: Record
    report: ResourceReport
    evaluations: _containers.RepeatedCompositeFieldContainer[Evaluation]
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., record: _Optional[_Union[Record, _Mapping]] = ..., report: _Optional[_Union[ResourceReport, _Mapping]] = ..., evaluations: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ...) -> None: ...

class ArraySlice(_message.Message):
    __slots__ = ("array", "offset", "data", "crc32c")
    ARRAY_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    array: int
    offset: int
    data: bytes
    crc32c: int
    def __init__(self, array: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., crc32c: _Optional[int] = ...) -> None: ...

class RecordEnd(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    def __init__(self, sha256: _Optional[bytes] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("header", "weights", "prompt", "prototypes", "expert", "mask", "sparse", "blob", "slice", "end")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROTOTYPES_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    header: RecordHeader
    weights: Weights
    prompt: Prompt
    prototypes: Prototypes
    expert: ExpertWeights
    mask: ParameterMask
    sparse: SparseWeights
    blob: Blob
    slice: ArraySlice
    end: RecordEnd
    def __init__(self, header: _Optional[_Union[RecordHeader, _Mapping]] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ..., prototypes: _Optional[_Union[Prototypes, _Mapping]] = ..., expert: _Optional[_Union[ExpertWeights, _Mapping]] = ..., mask: _Optional[_Union[ParameterMask, _Mapping]] = ..., sparse: _Optional[_Union[SparseWeights, _Mapping]] = ..., blob: _Optional[_Union[Blob, _Mapping]] = ..., slice: _Optional[_Union[ArraySlice, _Mapping]] = ..., end: _Optional[_Union[RecordEnd, _Mapping]] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("agent", "sha256", "offset")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    agent: str
    sha256: bytes
    offset: int
    def __init__(self, agent: _Optional[str] = ..., sha256: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class SubmitEvent(_message.Message):
    __slots__ = ("resume", "receipt")
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    resume: Resume
    receipt: Receipt
    def __init__(self, resume: _Optional[_Union[Resume, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("offsets",)
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    offsets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, offsets: _Optional[_Iterable[int]] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("key", "verdict", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    verdict: Verdict
    reason: str
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class EnrollRequest(_message.Message):
    __slots__ = ("token", "csr")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    token: str
    csr: bytes
    def __init__(self, token: _Optional[str] = ..., csr: _Optional[bytes] = ...) -> None: ...

class EnrollReply(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class AgentEvent(_message.Message):
    __slots__ = ("hello", "accepted", "declined", "progress", "transfer", "leaving", "prepared")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    accepted: Accepted
    declined: Declined
    progress: Progress
    transfer: TransferReport
    leaving: Leaving
    prepared: Prepared
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., accepted: _Optional[_Union[Accepted, _Mapping]] = ..., declined: _Optional[_Union[Declined, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., transfer: _Optional[_Union[TransferReport, _Mapping]] = ..., leaving: _Optional[_Union[Leaving, _Mapping]] = ..., prepared: _Optional[_Union[Prepared, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("host", "instance", "protocol", "version", "device", "learners", "methods", "encodings", "memory_budget_bytes", "time_budget_s", "agents", "part_bytes", "workers")
    class MethodsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    HOST_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    host: str
    instance: str
    protocol: int
    version: str
    device: DeviceFacts
    learners: _containers.RepeatedScalarFieldContainer[str]
    methods: _containers.ScalarMap[str, bytes]
    encodings: _containers.RepeatedScalarFieldContainer[str]
    memory_budget_bytes: int
    time_budget_s: float
    agents: _containers.RepeatedCompositeFieldContainer[AgentDescription]
    part_bytes: int
    workers: int
    def __init__(self, host: _Optional[str] = ..., instance: _Optional[str] = ..., protocol: _Optional[int] = ..., version: _Optional[str] = ..., device: _Optional[_Union[DeviceFacts, _Mapping]] = ..., learners: _Optional[_Iterable[str]] = ..., methods: _Optional[_Mapping[str, bytes]] = ..., encodings: _Optional[_Iterable[str]] = ..., memory_budget_bytes: _Optional[int] = ..., time_budget_s: _Optional[float] = ..., agents: _Optional[_Iterable[_Union[AgentDescription, _Mapping]]] = ..., part_bytes: _Optional[int] = ..., workers: _Optional[int] = ...) -> None: ...

class AgentDescription(_message.Message):
    __slots__ = ("name", "tags", "data", "named_data")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NAMED_DATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    data: DataFacts
    named_data: bool
    def __init__(self, name: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., data: _Optional[_Union[DataFacts, _Mapping]] = ..., named_data: bool = ...) -> None: ...

class DataFacts(_message.Message):
    __slots__ = ("name", "n_classes", "classes_sha256", "n_train", "n_test", "n_unlabelled", "counts", "has_counts")
    NAME_FIELD_NUMBER: _ClassVar[int]
    N_CLASSES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_SHA256_FIELD_NUMBER: _ClassVar[int]
    N_TRAIN_FIELD_NUMBER: _ClassVar[int]
    N_TEST_FIELD_NUMBER: _ClassVar[int]
    N_UNLABELLED_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    HAS_COUNTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    n_classes: int
    classes_sha256: bytes
    n_train: int
    n_test: int
    n_unlabelled: int
    counts: _containers.RepeatedScalarFieldContainer[int]
    has_counts: bool
    def __init__(self, name: _Optional[str] = ..., n_classes: _Optional[int] = ..., classes_sha256: _Optional[bytes] = ..., n_train: _Optional[int] = ..., n_test: _Optional[int] = ..., n_unlabelled: _Optional[int] = ..., counts: _Optional[_Iterable[int]] = ..., has_counts: bool = ...) -> None: ...

class DeviceFacts(_message.Message):
    __slots__ = ("machine", "cpu", "cores", "memory_bytes", "accelerator", "system", "python")
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    machine: str
    cpu: str
    cores: int
    memory_bytes: int
    accelerator: str
    system: str
    python: str
    def __init__(self, machine: _Optional[str] = ..., cpu: _Optional[str] = ..., cores: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., accelerator: _Optional[str] = ..., system: _Optional[str] = ..., python: _Optional[str] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ...) -> None: ...

class Declined(_message.Message):
    __slots__ = ("key", "why", "reason", "memory_step")
    KEY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MEMORY_STEP_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    why: Decline
    reason: str
    memory_step: int
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., why: _Optional[_Union[Decline, str]] = ..., reason: _Optional[str] = ..., memory_step: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("key", "phase", "fraction")
    KEY_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    phase: str
    fraction: float
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., phase: _Optional[str] = ..., fraction: _Optional[float] = ...) -> None: ...

class Leaving(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("key", "data", "classes")
    KEY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    data: DataFacts
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., data: _Optional[_Union[DataFacts, _Mapping]] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class ServerEvent(_message.Message):
    __slots__ = ("welcome", "offer", "withdrawn", "come_back", "refused")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    COME_BACK_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    offer: Offer
    withdrawn: Withdrawn
    come_back: ComeBack
    refused: Refused
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., withdrawn: _Optional[_Union[Withdrawn, _Mapping]] = ..., come_back: _Optional[_Union[ComeBack, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("server", "version", "protocol", "part_bytes")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PART_BYTES_FIELD_NUMBER: _ClassVar[int]
    server: str
    version: str
    protocol: int
    part_bytes: int
    def __init__(self, server: _Optional[str] = ..., version: _Optional[str] = ..., protocol: _Optional[int] = ..., part_bytes: _Optional[int] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("key", "round", "phase", "run", "task", "memory_step", "merged_step", "data", "moments", "deadline_s", "expects_reply", "earlier_step")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MEMORY_STEP_FIELD_NUMBER: _ClassVar[int]
    MERGED_STEP_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MOMENTS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    EXPECTS_REPLY_FIELD_NUMBER: _ClassVar[int]
    EARLIER_STEP_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    round: int
    phase: str
    run: PayloadRef
    task: Record
    memory_step: int
    merged_step: int
    data: DataIndex
    moments: _containers.RepeatedScalarFieldContainer[str]
    deadline_s: float
    expects_reply: bool
    earlier_step: int
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., round: _Optional[int] = ..., phase: _Optional[str] = ..., run: _Optional[_Union[PayloadRef, _Mapping]] = ..., task: _Optional[_Union[Record, _Mapping]] = ..., memory_step: _Optional[int] = ..., merged_step: _Optional[int] = ..., data: _Optional[_Union[DataIndex, _Mapping]] = ..., moments: _Optional[_Iterable[str]] = ..., deadline_s: _Optional[float] = ..., expects_reply: bool = ..., earlier_step: _Optional[int] = ...) -> None: ...

class DataIndex(_message.Message):
    __slots__ = ("index", "of")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    index: int
    of: int
    def __init__(self, index: _Optional[int] = ..., of: _Optional[int] = ...) -> None: ...

class Withdrawn(_message.Message):
    __slots__ = ("key", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    reason: str
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ComeBack(_message.Message):
    __slots__ = ("after_s", "jitter_s", "reason")
    AFTER_S_FIELD_NUMBER: _ClassVar[int]
    JITTER_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    after_s: float
    jitter_s: float
    reason: str
    def __init__(self, after_s: _Optional[float] = ..., jitter_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Pending(_message.Message):
    __slots__ = ("reply", "memory", "held_step")
    REPLY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    HELD_STEP_FIELD_NUMBER: _ClassVar[int]
    reply: RecordHeader
    memory: Record
    held_step: int
    def __init__(self, reply: _Optional[_Union[RecordHeader, _Mapping]] = ..., memory: _Optional[_Union[Record, _Mapping]] = ..., held_step: _Optional[int] = ...) -> None: ...

class LastTask(_message.Message):
    __slots__ = ("offer", "memory")
    OFFER_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    offer: Offer
    memory: Record
    def __init__(self, offer: _Optional[_Union[Offer, _Mapping]] = ..., memory: _Optional[_Union[Record, _Mapping]] = ...) -> None: ...

class HeldMemory(_message.Message):
    __slots__ = ("step", "memory")
    STEP_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    step: int
    memory: Record
    def __init__(self, step: _Optional[int] = ..., memory: _Optional[_Union[Record, _Mapping]] = ...) -> None: ...

class ResourceReport(_message.Message):
    __slots__ = ("seconds", "cpu_s", "rss_start_bytes", "rss_peak_bytes", "rss_peak_delta_bytes", "vm_hwm_bytes", "data_bytes", "model_bytes", "accelerator_peak_bytes", "n_samples", "n_steps", "loss", "warmup", "shared", "isolated", "spans", "counts", "device", "wall_s")
    class SecondsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    RSS_START_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_PEAK_DELTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    VM_HWM_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCELERATOR_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    N_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    N_STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    WARMUP_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    ISOLATED_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    seconds: _containers.ScalarMap[str, float]
    cpu_s: float
    rss_start_bytes: int
    rss_peak_bytes: int
    rss_peak_delta_bytes: int
    vm_hwm_bytes: int
    data_bytes: int
    model_bytes: int
    accelerator_peak_bytes: int
    n_samples: int
    n_steps: int
    loss: float
    warmup: bool
    shared: bool
    isolated: bool
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    counts: _containers.ScalarMap[str, float]
    device: DeviceFacts
    wall_s: float
    def __init__(self, seconds: _Optional[_Mapping[str, float]] = ..., cpu_s: _Optional[float] = ..., rss_start_bytes: _Optional[int] = ..., rss_peak_bytes: _Optional[int] = ..., rss_peak_delta_bytes: _Optional[int] = ..., vm_hwm_bytes: _Optional[int] = ..., data_bytes: _Optional[int] = ..., model_bytes: _Optional[int] = ..., accelerator_peak_bytes: _Optional[int] = ..., n_samples: _Optional[int] = ..., n_steps: _Optional[int] = ..., loss: _Optional[float] = ..., warmup: bool = ..., shared: bool = ..., isolated: bool = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., counts: _Optional[_Mapping[str, float]] = ..., device: _Optional[_Union[DeviceFacts, _Mapping]] = ..., wall_s: _Optional[float] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("name", "seconds", "cpu_s", "rss_peak_delta_bytes", "n_samples", "data_bytes", "model_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    RSS_PEAK_DELTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    N_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    seconds: float
    cpu_s: float
    rss_peak_delta_bytes: int
    n_samples: int
    data_bytes: int
    model_bytes: int
    def __init__(self, name: _Optional[str] = ..., seconds: _Optional[float] = ..., cpu_s: _Optional[float] = ..., rss_peak_delta_bytes: _Optional[int] = ..., n_samples: _Optional[int] = ..., data_bytes: _Optional[int] = ..., model_bytes: _Optional[int] = ...) -> None: ...

class TransferReport(_message.Message):
    __slots__ = ("key", "encode_s", "submit_s", "bytes_up", "bytes_down")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_UP_FIELD_NUMBER: _ClassVar[int]
    BYTES_DOWN_FIELD_NUMBER: _ClassVar[int]
    key: TaskKey
    encode_s: float
    submit_s: float
    bytes_up: int
    bytes_down: int
    def __init__(self, key: _Optional[_Union[TaskKey, _Mapping]] = ..., encode_s: _Optional[float] = ..., submit_s: _Optional[float] = ..., bytes_up: _Optional[int] = ..., bytes_down: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("moment", "reading", "label_space", "split", "n", "sums", "seconds")
    class SumsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MOMENT_FIELD_NUMBER: _ClassVar[int]
    READING_FIELD_NUMBER: _ClassVar[int]
    LABEL_SPACE_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    moment: str
    reading: str
    label_space: str
    split: str
    n: int
    sums: _containers.ScalarMap[str, float]
    seconds: float
    def __init__(self, moment: _Optional[str] = ..., reading: _Optional[str] = ..., label_space: _Optional[str] = ..., split: _Optional[str] = ..., n: _Optional[int] = ..., sums: _Optional[_Mapping[str, float]] = ..., seconds: _Optional[float] = ...) -> None: ...

class SubmitRunRequest(_message.Message):
    __slots__ = ("run_toml", "name", "files")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    RUN_TOML_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    run_toml: str
    name: str
    files: _containers.ScalarMap[str, bytes]
    def __init__(self, run_toml: _Optional[str] = ..., name: _Optional[str] = ..., files: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class RunSummary(_message.Message):
    __slots__ = ("run", "method", "status", "round", "rounds", "reason", "created_at", "finished_at", "state_sha256")
    RUN_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    STATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    run: str
    method: str
    status: str
    round: int
    rounds: int
    reason: str
    created_at: float
    finished_at: float
    state_sha256: str
    def __init__(self, run: _Optional[str] = ..., method: _Optional[str] = ..., status: _Optional[str] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., reason: _Optional[str] = ..., created_at: _Optional[float] = ..., finished_at: _Optional[float] = ..., state_sha256: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunsReply(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[RunSummary]
    def __init__(self, runs: _Optional[_Iterable[_Union[RunSummary, _Mapping]]] = ...) -> None: ...

class ShowRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run", "from_round")
    RUN_FIELD_NUMBER: _ClassVar[int]
    FROM_ROUND_FIELD_NUMBER: _ClassVar[int]
    run: str
    from_round: int
    def __init__(self, run: _Optional[str] = ..., from_round: _Optional[int] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class RunDetail(_message.Message):
    __slots__ = ("summary", "config_toml", "rounds", "evaluations")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    CONFIG_TOML_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    summary: RunSummary
    config_toml: str
    rounds: _containers.RepeatedCompositeFieldContainer[RoundReport]
    evaluations: _containers.RepeatedCompositeFieldContainer[EvaluationReport]
    def __init__(self, summary: _Optional[_Union[RunSummary, _Mapping]] = ..., config_toml: _Optional[str] = ..., rounds: _Optional[_Iterable[_Union[RoundReport, _Mapping]]] = ..., evaluations: _Optional[_Iterable[_Union[EvaluationReport, _Mapping]]] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("summary", "round", "evaluation", "note")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    summary: RunSummary
    round: RoundReport
    evaluation: EvaluationReport
    note: str
    def __init__(self, summary: _Optional[_Union[RunSummary, _Mapping]] = ..., round: _Optional[_Union[RoundReport, _Mapping]] = ..., evaluation: _Optional[_Union[EvaluationReport, _Mapping]] = ..., note: _Optional[str] = ...) -> None: ...

class RoundReport(_message.Message):
    __slots__ = ("round", "seconds", "quorum_missed", "agents", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUORUM_MISSED_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    round: int
    seconds: float
    quorum_missed: bool
    agents: _containers.RepeatedCompositeFieldContainer[AgentReport]
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, round: _Optional[int] = ..., seconds: _Optional[float] = ..., quorum_missed: bool = ..., agents: _Optional[_Iterable[_Union[AgentReport, _Mapping]]] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class AgentReport(_message.Message):
    __slots__ = ("agent", "phase", "step", "outcome", "reason", "report", "transfer", "transfer_missing", "evaluations", "task")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_MISSING_FIELD_NUMBER: _ClassVar[int]
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    agent: str
    phase: str
    step: int
    outcome: str
    reason: str
    report: ResourceReport
    transfer: TransferReport
    transfer_missing: bool
    evaluations: _containers.RepeatedCompositeFieldContainer[Evaluation]
    task: str
    def __init__(self, agent: _Optional[str] = ..., phase: _Optional[str] = ..., step: _Optional[int] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., report: _Optional[_Union[ResourceReport, _Mapping]] = ..., transfer: _Optional[_Union[TransferReport, _Mapping]] = ..., transfer_missing: bool = ..., evaluations: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ..., task: _Optional[str] = ...) -> None: ...

class EvaluationReport(_message.Message):
    __slots__ = ("round", "moment", "agents", "missing", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MOMENT_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    round: int
    moment: str
    agents: _containers.RepeatedCompositeFieldContainer[AgentReport]
    missing: _containers.RepeatedScalarFieldContainer[str]
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, round: _Optional[int] = ..., moment: _Optional[str] = ..., agents: _Optional[_Iterable[_Union[AgentReport, _Mapping]]] = ..., missing: _Optional[_Iterable[str]] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ListAgentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AgentSummary(_message.Message):
    __slots__ = ("name", "host", "online", "tags", "data", "device", "learners", "last_seen_at", "working_on")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_AT_FIELD_NUMBER: _ClassVar[int]
    WORKING_ON_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    online: bool
    tags: _containers.RepeatedScalarFieldContainer[str]
    data: DataFacts
    device: DeviceFacts
    learners: _containers.RepeatedScalarFieldContainer[str]
    last_seen_at: float
    working_on: str
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ..., online: bool = ..., tags: _Optional[_Iterable[str]] = ..., data: _Optional[_Union[DataFacts, _Mapping]] = ..., device: _Optional[_Union[DeviceFacts, _Mapping]] = ..., learners: _Optional[_Iterable[str]] = ..., last_seen_at: _Optional[float] = ..., working_on: _Optional[str] = ...) -> None: ...

class ListAgentsReply(_message.Message):
    __slots__ = ("agents",)
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[AgentSummary]
    def __init__(self, agents: _Optional[_Iterable[_Union[AgentSummary, _Mapping]]] = ...) -> None: ...

class ExportRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class ExportPart(_message.Message):
    __slots__ = ("name", "data", "last")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    name: str
    data: bytes
    last: bool
    def __init__(self, name: _Optional[str] = ..., data: _Optional[bytes] = ..., last: bool = ...) -> None: ...
