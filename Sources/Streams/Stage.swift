import Base
import EventLog
import RecordFormat

/// An event as a stage sees it: where it stands, when it happened, and its data already parsed.
@usableFromInline
package struct StreamEvent {
    package let topic: String
    @usableFromInline package let time: Instant
    @usableFromInline package let document: JSONDocument
    /// Set for an event read from the log.
    let stored: StoredEvent?
    let partition: Int
    /// Set for an event that an earlier stage of the same instant emitted; its position is decided by the log.
    let derived: NewEvent?
    let derivedOffset: Int64
    /// Of an event that came late, how far it is behind what its partition was complete through, in milliseconds; nil in time.
    package var lag: Int64?

    package var position: Position {
        Position(topic: topic, partition: partition, offset: stored?.offset ?? derivedOffset, sequence: nil)
    }

    package var id: String { derived?.id ?? stored?.id ?? "" }
    package var type: String { derived?.type ?? stored?.type ?? "" }
    package var causation: String? { derived?.causation ?? stored?.header(EventHeader.causation) }
    /// What it is partitioned and kept under; empty where it has none.
    @usableFromInline package var key: String {
        (derived.map(\.key) ?? stored?.key).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
    package var data: [UInt8] { derived?.data ?? stored?.data ?? [] }
}

/// One deterministic fold of a topology: (state, event) → (state, new events). It gets no clock and no randomness; its
/// state lives in its stores.
package protocol Stage: AnyObject {
    var name: String { get }
    /// Topics whose events it wants, in the order in which events of one instant are folded.
    var inputs: [String] { get }
    var stores: [any AnyStateStore] { get }
    /// Topics that it emits to.
    var outputs: [String] { get }

    func process(_ event: StreamEvent, _ context: StageContext) throws
    /// How far behind its partition's progress an event of a topic may be and still be processed here, in milliseconds; nil where
    /// no late event is.
    func lateness(of topic: String) -> Int64?
    /// An event without data: it takes its key out of a table. Its document is of no use.
    func erase(_ event: StreamEvent, _ context: StageContext) throws
    /// A timer fires after every event with a time up to its own.
    func fire(timer key: String, at time: Instant, _ context: StageContext) throws
    /// Tables that it serves beside what it emits.
    var views: [String] { get }
    /// What a view holds for a key, with the event time that it is of; nil where it holds nothing.
    func read(view: String, key: String) throws -> (value: JSON, time: Instant)?
    /// Called once after the stores were loaded, before the first event.
    func restored() throws
}

extension Stage {
    package func fire(timer key: String, at time: Instant, _ context: StageContext) throws {}
    package func restored() throws {}
    package func lateness(of topic: String) -> Int64? { nil }
    package var views: [String] { [] }
    package func read(view: String, key: String) throws -> (value: JSON, time: Instant)? { nil }
    package func erase(_ event: StreamEvent, _ context: StageContext) throws {}
}

/// An event that a stage emitted.
package struct DerivedEvent {
    package let topic: String
    package let partition: Int
    /// The offset it will have there.
    package let offset: Int64
    package let event: NewEvent

    package init(topic: String, partition: Int, offset: Int64, event: NewEvent) {
        (self.topic, self.partition, self.offset, self.event) = (topic, partition, offset, event)
    }
}

/// What a stage may do: emit, set timers, hold the stream until an effector answers. Everything it gives is a function of
/// the events so far.
package final class StageContext {
    /// Stream time: the time of the event or timer that is being folded.
    package internal(set) var now = Instant.distantPast
    var stage = 0
    var emitted: [DerivedEvent] = []
    var timers = TimerQueue()
    var holds = StateStore<HoldState>(name: "runner.holds")
    /// Offsets consumed so far, by input partition in input order: the as-of position of whatever is computed now.
    package internal(set) var positions: [(partition: TopicPartition, next: Int64)] = []

    /// The partition that derived events go to.
    var partition = 0
    /// How many tasks share the keys between them; nil where each has its partitions.
    var keyTasks: Int?
    /// What is folded just now is this task's alone, though all of them see it.
    var isAmongOwn = false
    /// What tells the ids of a task's events from those of the others; empty where there is one.
    var taskMark: [UInt8] = []
    /// Events emitted so far by topic: in its partition the topology is the only writer, so an event's position is known
    /// before the log has it (and checked when it does).
    var emittedOffsets: [String: Int64] = [:]
    var places: (any DerivedPlaces)?
    /// Why a position could not be told; the runner stops at it before anything goes on.
    var placeFailure: (any Error)?

    /// Derived events carry the stage's name as their source, stream time as their event time and a deterministic id.
    /// Returns the position the event will have.
    @discardableResult
    package func emit(
        topic: String, type: String, id: String, key: String? = nil, data: [UInt8], causation: String? = nil,
        source: String
    ) -> Position {
        emit(
            topic: topic, type: type, id: id, key: key.map { [UInt8]($0.utf8) }, data: data, causation: causation,
            from: StageContext.source(source))
    }

    /// What a stage's events name as their source.
    static func source(_ stage: String) -> String { "headrace:/" + stage }

    @discardableResult
    func emit(
        topic: String, type: String, id: String, key: [UInt8]?, data: [UInt8], causation: String?, from source: String
    ) -> Position {
        var offset = emittedOffsets[topic, default: 0]
        if let places {
            do { offset = try places.place(topic, from: offset) } catch { placeFailure = placeFailure ?? error }
        }
        emittedOffsets[topic] = offset + 1
        emitted.append(
            DerivedEvent(
                topic: topic, partition: partition, offset: offset,
                event: NewEvent(
                    id: id, source: source, type: type, time: now, key: key, data: data, causation: causation)))
        return Position(topic: topic, partition: partition, offset: offset, sequence: nil)
    }

    /// How far derived topics had been written when something was computed from all of their events so far.
    package func asOf(_ topics: [String]) -> JSON {
        var members: [String: JSON] = [:]
        for topic in topics {
            if let next = emittedOffsets[topic], next > 0 { members["\(topic)/\(partition)"] = .int(next) }
        }
        return .object(members)
    }

    package func setTimer(at time: Instant, key: String) {
        timers.insert(TimerQueue.Entry(time: time, stage: stage, key: key))
    }

    package func cancelTimer(at time: Instant, key: String) {
        timers.remove(TimerQueue.Entry(time: time, stage: stage, key: key))
    }

    /// Nothing later than `until` is folded before an answer with this causation has been.
    package func hold(request id: String, until: Instant) {
        holds.set(id, HoldState(until: until))
    }
}

/// An outstanding request to an effector.
package struct HoldState: StateValue {
    package let until: Instant
    init(until: Instant) { self.until = until }
    package func encode(into writer: inout ByteWriter) { writer.append(little: until.milliseconds) }
    package init(decoding reader: inout ByteReader) throws(BaseError) {
        until = Instant(milliseconds: try reader.little())
    }
}
