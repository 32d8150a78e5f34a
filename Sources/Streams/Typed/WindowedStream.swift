import Base
import Learning

/// How a key's events are put into windows. A window is (end − size, end], exact at both edges; tumbling and hopping ones end
/// at multiples of their step since 1970.
public enum WindowShape: Sendable {
    /// One after the other.
    case tumbling(milliseconds: Int64)
    /// One every so many milliseconds, overlapping.
    case hopping(milliseconds: Int64, every: Int64)
    /// Ends when nothing came for so long.
    case session(gap: Int64)
    /// Ends at every event.
    case sliding(milliseconds: Int64)

    var name: String {
        switch self {
        case .tumbling(let size): "tumbling \(size) ms"
        case .hopping(let size, let step): "hopping \(size) ms every \(step) ms"
        case .session(let gap): "session with gaps of \(gap) ms"
        case .sliding(let size): "sliding \(size) ms"
        }
    }
}

/// When a window's result is given.
public enum Emission: Sendable {
    /// Once, when it is over: nothing can come into it any more.
    case whenClosed
    /// After each of its events as well.
    case onEveryEvent
}

/// The names of a window's measures, as texts and as they are written.
final class WindowNames: Sendable {
    let texts: [String]
    let keys: [[UInt8]]

    init(_ texts: [String]) {
        self.texts = texts
        keys = texts.map { JSONWriter.escaped(key: $0) }
    }
}

/// What a window says, in the order of its measures.
public struct WindowResult: StreamValue, Sendable {
    /// The window is (from, to]; of a session, from its first event to its last. Where measures look over lengths of their
    /// own, it is the longest one's.
    public let from: Instant
    /// The window's last moment.
    public let to: Instant
    private let names: WindowNames
    private let values: [JSON]

    init(from: Int64, to: Int64, _ names: WindowNames, _ values: [JSON]) {
        self.from = Instant(milliseconds: from)
        self.to = Instant(milliseconds: to)
        self.names = names
        self.values = values
    }

    /// In the order in which they were asked for.
    public var measures: [(name: String, value: JSON)] { zip(names.texts, values).map { ($0, $1) } }

    /// What a measure says; nil where there is none of that name.
    public subscript(name: String) -> JSON? { names.texts.firstIndex(of: name).map { values[$0] } }

    /// As `write` writes it.
    public init(_ fields: FieldReader) throws {
        from = try fields.time("from")
        to = try fields.time("to")
        var names: [String] = []
        var values: [JSON] = []
        let document = fields.document
        try document.forEachMember(fields.node) { key, value in
            guard let name = document.string(key), name != "from", name != "to" else { return }
            names.append(name)
            values.append(try document.value(value))
        }
        self.names = WindowNames(names)
        self.values = values
    }

    /// As an object of `from`, `to` and the measures by name.
    public func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("from")
        writer.value(from)
        writer.key("to")
        writer.value(to)
        for (key, value) in zip(names.keys, values) {
            writer.key(escaped: key)
            writer.value(value)
        }
        writer.endObject()
    }
}

/// A keyed stream in windows.
public struct WindowedStream<Value: StreamValue> {
    @usableFromInline let stream: EventStream<Value>
    @usableFromInline let window: WindowShape

    @usableFromInline
    init(stream: EventStream<Value>, window: WindowShape) {
        self.stream = stream
        self.window = window
    }

    /// The measures of each window of each key.
    @inlinable
    public func measure(
        _ measures: Measure<Value>..., emits emission: Emission = .whenClosed
    ) -> EventStream<WindowResult> {
        if case .sliding(let size) = window { return sliding(measures, size, emission) }
        return closing(measures, emission)
    }

    @usableFromInline
    func node(_ measures: [Measure<Value>], _ emission: Emission) -> Int {
        stream.builder.node(
            .window, window.name, parents: [stream.node],
            settings: measures.map(\.settings) + (emission == .onEveryEvent ? ["on every event"] : []),
            mayThrow: measures.contains(where: \.mayThrow))
    }

    @usableFromInline
    func closing(_ measures: [Measure<Value>], _ emission: Emission) -> EventStream<WindowResult> {
        precondition(measures.allSatisfy { $0.span == nil }, "only sliding windows have measures of other lengths")
        let node = node(measures, emission)
        switch window {
        case .tumbling(let size):
            return PaneWindows(stream, node, measures, size: size, step: size, emission).made
        case .hopping(let size, let step):
            return PaneWindows(stream, node, measures, size: size, step: step, emission).made
        case .session(let gap): return SessionWindows(stream, node, measures, gap: gap, emission).made
        case .sliding(let size): return sliding(measures, size, emission)
        }
    }

    @usableFromInline
    func windows(_ measures: [Measure<Value>], _ size: Int64, _ emission: Emission) -> SlidingWindows {
        SlidingWindows(stream.builder, node(measures, emission), SlidingPlan(measures, size: size))
    }

    @inlinable
    func sliding(_ measures: [Measure<Value>], _ size: Int64, _ emission: Emission) -> EventStream<WindowResult> {
        let windows = windows(measures, size, emission)
        let made = EventStream<WindowResult>(stream.builder, windows.node)
        stream.receiveOwn { [out = made.outlet] record, flow in
            windows.begin()
            for index in windows.numberColumns { windows.take(try measures[index].number(record.value)) }
            for index in windows.textColumns { windows.take(try measures[index].text(record.value)) }
            try out.send(record.with(windows.slide(record.key, record.time, flow)), flow)
        }
        return made
    }
}

/// Inputs of one value to its measures; nil where it adds nothing.
func contributions<Value>(_ measures: [Measure<Value>], _ value: Value) throws -> [MeasureInput?] {
    var inputs: [MeasureInput?] = []
    inputs.reserveCapacity(measures.count)
    for measure in measures { inputs.append(try measure.contribution(value)) }
    return inputs
}

/// The measures of one pane or session.
struct MeasureStates: StateValue {
    var list: [MeasureState]

    init<Value>(_ measures: [Measure<Value>]) { list = measures.map { MeasureState($0) } }

    mutating func add<Value>(_ inputs: [MeasureInput?], _ measures: [Measure<Value>]) {
        for index in list.indices {
            if let input = inputs[index] { list[index].add(input, measures[index]) }
        }
    }

    mutating func merge<Value>(_ later: MeasureStates, _ measures: [Measure<Value>]) {
        for index in list.indices { list[index].merge(later.list[index], measures[index]) }
    }

    func results<Value>(_ measures: [Measure<Value>]) -> [JSON] {
        zip(list, measures).map { $0.result($1) }
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(little: UInt32(list.count))
        for state in list { state.encode(into: &writer) }
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        list = []
        for _ in 0..<(try reader.little(UInt32.self)) { list.append(try MeasureState(decoding: &reader)) }
    }
}

/// The end of the window or pane of so many milliseconds that a moment lies in: (end − size, end].
func windowEnd(_ time: Int64, _ size: Int64) -> Int64 {
    let (quotient, rest) = time.quotientAndRemainder(dividingBy: size)
    return rest > 0 ? (quotient + 1) * size : quotient * size
}
