import Base
import EventLog

/// One value on its way through a typed topology.
public struct StreamRecord<Value> {
    /// What it is kept and joined under; empty where an event has no key.
    public var key: String
    /// What goes through.
    public var value: Value
    /// Event time. What an operator makes carries the stream time at which it was made.
    public let time: Instant

    /// A value under a key at a moment.
    @inlinable
    public init(key: String, value: Value, time: Instant) {
        self.key = key
        self.value = value
        self.time = time
    }

    @inlinable
    func with<New>(_ value: New) -> StreamRecord<New> { StreamRecord<New>(key: key, value: value, time: time) }
}

/// What the operators of one stage share while one event or timer goes through them.
@usableFromInline
package final class StreamFlow {
    private enum Origin {
        case event(StreamEvent)
        case timer(String, Instant)
    }

    let context: StageContext
    private let stage: String
    private let source: String
    private var origin = Origin.timer("", .distantPast)
    /// What was emitted of this event or timer so far: the rest of an emitted event's id.
    private var emitted = 0
    /// Reused from id to id.
    private var id: [UInt8] = []

    /// What goes through just now is this task's alone: what fails is recorded here. A throw leaves it as it was.
    @usableFromInline var isAmongOwn: Bool {
        get { context.isAmongOwn }
        set { context.isAmongOwn = newValue }
    }

    /// Whether a key is this task's, where tasks share by key.
    @usableFromInline
    func owns(_ key: String) -> Bool {
        guard let tasks = context.keyTasks else { return true }
        var key = key
        return key.withUTF8 { murmur2Partition(UnsafeRawBufferPointer($0), partitions: tasks) } == context.partition
    }

    private struct Emission {
        let topic: String
        let type: String
        let id: String
        let key: [UInt8]?
        let data: [UInt8]
        let causation: String?
    }

    /// Effects wait until nothing of the event can throw any more.
    private let waits: Bool
    private var emissions: [Emission] = []
    private var timers: [(name: String, time: Instant)] = []

    init(_ context: StageContext, stage: String, waits: Bool) {
        self.context = context
        self.waits = waits
        self.stage = stage
        source = StageContext.source(stage)
    }

    /// Stream time: that of the event or timer being folded.
    package var now: Instant { context.now }

    func begin(_ event: StreamEvent) {
        origin = .event(event)
        emitted = 0
        isAmongOwn = false
    }

    func begin(timer: String, at time: Instant) {
        origin = .timer(timer, time)
        emitted = 0
        isAmongOwn = true
    }

    @usableFromInline
    func emit(topic: String, type: String, key: String, data: [UInt8]) {
        // Written byte by byte: interpolation would cost more than the window that is emitted.
        id.removeAll(keepingCapacity: true)
        id.append(contentsOf: stage.utf8)
        id.append(contentsOf: context.taskMark)
        id.append(0x3A)
        id.append(contentsOf: topic.utf8)
        id.append(0x3A)
        var causation: String?
        switch origin {
        case .event(let event):
            let position = event.position
            id.append(contentsOf: position.topic.utf8)
            id.append(0x2F)
            JSONNumber.append(Int64(position.partition), to: &id)
            id.append(0x40)
            JSONNumber.append(position.offset, to: &id)
            causation = event.id
        case .timer(let name, let time):
            id.append(contentsOf: name.utf8)
            id.append(0x40)
            JSONNumber.append(time.milliseconds, to: &id)
        }
        id.append(0x3A)
        JSONNumber.append(Int64(emitted), to: &id)
        let (name, bytes) = (String(decoding: id, as: UTF8.self), key.isEmpty ? nil : [UInt8](key.utf8))
        emitted += 1
        guard !waits else {
            emissions.append(
                Emission(topic: topic, type: type, id: name, key: bytes, data: data, causation: causation))
            return
        }
        context.emit(topic: topic, type: type, id: name, key: bytes, data: data, causation: causation, from: source)
    }

    func set(_ timer: String, at time: Instant) {
        if waits { timers.append((timer, time)) } else { context.setTimer(at: time, key: timer) }
    }

    /// What waited has its effect.
    func release() {
        for timer in timers { context.setTimer(at: timer.time, key: timer.name) }
        for emission in emissions {
            context.emit(
                topic: emission.topic, type: emission.type, id: emission.id, key: emission.key, data: emission.data,
                causation: emission.causation, from: source)
        }
        drop()
    }

    /// What waited has none.
    func drop() {
        timers.removeAll(keepingCapacity: true)
        emissions.removeAll(keepingCapacity: true)
    }
}
