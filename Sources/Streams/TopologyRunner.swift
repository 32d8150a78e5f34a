import Base
import EventLog
import Foundation
import RecordFormat

/// Feeds a topology by event time: inputs are merged by (event time, topic rank, partition, offset), released by
/// watermarks, timers fire in between, and everything that belongs together is checkpointed together.
package final class TopologyRunner {
    /// Events folded between two looks at the clock for checkpoints and for stopping.
    static let sliceEvents = 512

    package let topology: Topology
    let log: any EventLog
    let database: StateDatabase
    let sink: any DerivedSink
    /// Where other nodes learn the state from; nil where no other takes this one over.
    package var changelog: ChangelogWriter?
    let context = StageContext()
    var inputs: [InputCursor] = []
    private var subscribers: [String: [Int]] = [:]
    /// The same by input, where it is asked for every event.
    private var inputStages: [[Int]] = []
    /// Events that were read and are not in turn yet, of inputs that are sorted.
    var waiting = WaitingEvents()
    let document = JSONDocument()
    private let hasReadings: Bool
    private let derivedDocument = JSONDocument()
    let progressDocument = JSONDocument()
    let stores: [any AnyStateStore]
    /// The checkpoint that is under way.
    var underWay: Checkpoint?
    /// The thread of the checkpoint before, and whether it has come to rest.
    var lastWriter: BlockingThread?
    var lastAtRest: Monitor<Bool>?
    var lastCut: Int = .min
    var lateEvents: Int64 = 0
    package private(set) var folded: Int64 = 0
    package private(set) var emittedCount: Int64 = 0
    /// Events that a stage could not fold: recorded with their reason, never swallowed.
    package private(set) var failures: Int64 = 0
    package internal(set) var checkpoints: Int64 = 0
    private var stopRequested = false
    /// Nothing later is folded, and no later timer fires: state as of a moment of the past.
    package var horizon = Instant.distantFuture {
        didSet { lastMoment = min(horizon, pending?.now ?? .distantFuture) }
    }
    /// The earlier of it and of where a topology before is taken over from.
    private(set) var lastMoment = Instant.distantFuture
    /// Where the topology begins to speak, until it is there.
    var pending: Takeover? {
        didSet { lastMoment = min(horizon, pending?.now ?? .distantFuture) }
    }
    /// No timer behind this one fires before.
    var timerLimit: TimerQueue.Entry?
    /// The fold ends there.
    package var stopsAtTakeover = false
    /// Where the inputs end in a bounded replay.
    let ends: [TopicPartition: Int64]?
    /// The timer that was the last thing to happen; nil where an event was.
    var lastFired: TimerQueue.Entry?
    /// Nothing is folded behind this event: state as of a position.
    var lastEvent: (input: Int, offset: Int64)?
    /// Events that were read before their turn and set aside, since the start.
    var parked = 0
    /// Whether state digests are recorded; who only wants the state spares itself the work.
    package var recordsDigests = true

    /// The partition of every input that is read, and of every output that is written; nil reads all of them and writes 0.
    package let task: Int?
    /// How many tasks share the keys, each of which reads every partition.
    let keyTasks: Int?
    /// The topology, or the task of it, in ids.
    let label: String
    /// What the stages write.
    let outputs: [String]
    var saidThrough = Instant.distantPast
    var saidFinished = false
    private var slices = 0
    private var isBegun = false
    /// What the log held when the runner began was folded, as far as it can be: the state is no older than what others had told
    /// of it before.
    package private(set) var hasCaughtUp = false
    /// Where the inputs ended then.
    var aims: [Int64] = []
    /// What the log held when the runner began was read.
    package var hasReachedAims: Bool { isBegun && zip(inputs, aims).allSatisfy { $0.next >= $1 } }
    /// Memory is spent on what changed since the last checkpoint: there should be one, whenever the next is due.
    package internal(set) var needsCheckpoint = false

    /// - Parameters:
    ///   - task: a topology of which partitions are independent runs as one task a partition, each with state of its own.
    ///   - derived: topics that the stages themselves write; they are not read back.
    ///   - ends: where the inputs end in a bounded replay.
    package init(
        topology: Topology, task: Int? = nil, derived: Set<String>, log: any EventLog, database: StateDatabase,
        sink: any DerivedSink, ends: [TopicPartition: Int64]? = nil
    ) throws {
        self.topology = topology
        self.task = task
        self.ends = ends
        let mark = (task.map { "/\($0)" } ?? "") + (topology.generation > 1 ? "~\(topology.generation)" : "")
        label = topology.name + mark
        var seen: Set<String> = []
        outputs = topology.stages.flatMap(\.outputs).filter { seen.insert($0).inserted }
        self.log = log
        hasReadings = !topology.readings.isEmpty
        self.database = database
        self.sink = sink
        context.places = sink.places
        context.partition = task ?? 0
        keyTasks = task == nil ? nil : topology.keyTasks
        context.keyTasks = keyTasks
        context.taskMark = [UInt8](mark.utf8)
        for (index, stage) in topology.stages.enumerated() {
            for topic in stage.inputs { subscribers[topic, default: []].append(index) }
        }
        stores = topology.stages.flatMap(\.stores) + [context.timers.store, context.holds, waiting.store]
        waiting.store.keepsDigest = false
        for (rank, topic) in topology.inputs(derived: derived).enumerated() {
            let partitions = log.partitions(of: topic)
            guard partitions > 0 else {
                throw StreamsError(
                    "unknown-topic", "the topology '\(topology.name)' reads '\(topic)', which no definition declares")
            }
            let upstream = topology.upstream[topic]
            let role: InputCursor.Role =
                topology.answers.contains(topic)
                ? .answer
                : (topology.attachments.contains(topic) ? .attachment : (upstream == nil ? .source : .derived))
            guard keyTasks != nil || task ?? 0 < partitions else {
                throw StreamsError(
                    "not-copartitioned",
                    "'\(topology.name)' runs by partition, and '\(topic)' has \(partitions) where another input has more: give all of its inputs as many",
                    fault: .caller)
            }
            for partition in keyTasks == nil ? task.map({ $0..<$0 + 1 }) ?? 0..<partitions : 0..<partitions {
                let place = TopicPartition(topic, partition)
                var cursor = InputCursor(partition: place, rank: rank, role: role)
                cursor.end = ends.map { $0[place] ?? 0 }
                cursor.sorts = role == .source && topology.sorted.contains(topic)
                cursor.upstream = upstream.map { UpstreamCursor($0, of: place) }
                if let upstream, partition >= upstream.tasks { cursor.source = .finished }
                inputs.append(cursor)
                inputStages.append(subscribers[topic] ?? [])
            }
        }
        try restore()
    }

    // Operators hold each other, and with them their stores: the disk must not be held with them.
    deinit { for store in stores { store.detach() } }

    private func restore() throws {
        let (positions, meta) = try database.load(stores, identity: topology.identity)
        for saved in positions {
            guard let index = inputs.firstIndex(where: { $0.partition == saved.partition }) else { continue }
            let old = inputs[index]
            var cursor = InputCursor(partition: old.partition, rank: old.rank, role: old.role, next: saved.next)
            cursor.end = old.end
            cursor.sorts = old.sorts
            if let upstream = topology.upstream[old.partition.topic] {
                let next = meta["follows/\(saved.partition)"].flatMap { Int64($0) }
                cursor.upstream = UpstreamCursor(upstream, of: old.partition, next: next ?? 0)
            }
            cursor.completeThrough = Instant(milliseconds: saved.through)
            cursor.round = meta["round/\(saved.partition)"].flatMap { Int64($0) } ?? 0
            cursor.source = [.unstarted, .active, .idle, .finished][saved.source]
            guard saved.next <= (try log.offsets(old.partition)).upperBound else {
                throw StreamsError(
                    "state-ahead",
                    "the state has folded \(saved.partition) to offset \(saved.next), beyond the end of the log; it belongs to another log: delete state.sqlite and views.sqlite, and they are rebuilt",
                    fault: .world)
            }
            inputs[index] = cursor
        }
        context.positions = inputs.map { ($0.partition, 0) }
        for (index, input) in inputs.enumerated() {
            let text = meta["folded/\(input.partition)"]
            context.positions[index].next = text.flatMap { Int64($0) } ?? 0
        }
        for (name, value) in meta where name.hasPrefix(Self.emittedMark) {
            context.emittedOffsets[String(name.dropFirst(Self.emittedMark.count))] = Int64(value) ?? 0
        }
        lastFired = meta[Self.firedMark].flatMap { TimerQueue.Entry(name: $0) }
        lastCut = meta["cut"].flatMap { Int($0) } ?? .min
        context.now = meta["now"].flatMap { Int64($0) }.map { Instant(milliseconds: $0) } ?? .distantPast
        folded = meta["count"].flatMap { Int64($0) } ?? 0
        emittedCount = meta["emitted"].flatMap { Int64($0) } ?? 0
        lateEvents = meta["late"].flatMap { Int64($0) } ?? 0
        failures = meta["failures"].flatMap { Int64($0) } ?? 0
        context.timers.restore()
        waiting.restore()
        try requireInputs(meta[WaitingEvents.inputsMark])
        for (index, input) in inputs.enumerated() where input.sorts {
            waiting.released[index] = meta[WaitingEvents.releasedMark + "\(input.partition)"]
                .flatMap { TimerQueue.Entry(name: $0) }
        }
        for stage in topology.stages { try stage.restored() }
        if let takeover = topology.takeover(task), meta[Self.takenMark] == nil { awaitTakeover(takeover) }
    }

    package var now: Instant { context.now }
    /// First offsets that were not folded, by input partition.
    package var positions: [(partition: TopicPartition, next: Int64)] { context.positions }
    package var late: Int64 { lateEvents }

    /// True when every input is read to its end and no answer is awaited: nothing is left to fold until more arrives.
    package var isDrained: Bool {
        inputs.allSatisfy { !$0.hasHead } && context.holds.count == 0 && !isSilent
    }

    /// Ends a bounded replay at the event just taken; the runner folds no further.
    package func stop() { stopRequested = true }

    /// Folds up to one slice. False when nothing can be folded before more arrives in the log.
    package func runSlice() throws -> Bool {
        var worked = 0
        try requireState()
        if !isBegun {
            isBegun = true
            aims = try inputs.map { try log.offsets($0.partition).upperBound }
            beginDigests()
        }
        let parkedBefore = parked
        _ = try refill()
        while worked < TopologyRunner.sliceEvents, !stopRequested {
            guard try step() else { break }
            worked += 1
            if let last = lastEvent, inputs[last.input].next > last.offset { stop() }
        }
        // A timer that could not be read is none that was not set: nothing is said, and nothing is kept.
        try requireState()
        if !hasCaughtUp, !isSilent {
            let choice = choose()
            // What waits and is in turn was told of before.
            let isWaiting = choice.waits && choice.place < choice.bound
            hasCaughtUp = worked == 0 || (zip(inputs, aims).allSatisfy { $0.next >= $1 } && !isWaiting)
        }
        if isSilent, worked < TopologyRunner.sliceEvents, !stopRequested, takeOver() { return true }
        if topology.saysProgress, !isSilent {
            slices += 1
            if worked < TopologyRunner.sliceEvents || slices % TopologyRunner.progressSlices == 0 { try noteProgress() }
            try requireState()
        }
        if worked > 0 { try sink.sliceEnded(consumed) }
        try keepWithinMemory()
        // What was set aside is work too: it is in the state, and wants a checkpoint.
        return worked > 0 || parked != parkedBefore
    }

    /// The next offset of every input that has been read at all.
    func consumed() -> [TopicPartition: Int64] {
        var positions: [TopicPartition: Int64] = [:]
        for input in inputs where input.next > 0 { positions[input.partition] = input.next }
        return positions
    }

    // MARK: One step

    func fireTimer(upTo time: Instant) throws -> Bool {
        guard let next = context.timers.peek(), next.time <= time else { return false }
        if let timerLimit, timerLimit < next { return false }
        try cutIfDue(before: next.time)
        guard let entry = context.timers.take() else { return false }
        context.now = max(context.now, entry.time)
        context.stage = entry.stage
        lastFired = entry
        let stage = topology.stages[entry.stage]
        do {
            try stage.fire(timer: entry.key, at: entry.time, context)
        } catch let error as any DescribedError where error.fault == .caller {
            try noteFailure("the timer '\(entry.key)' of \(entry.time)", "\(error)")
            context.emit(
                topic: topology.side.unfolded, type: "stream.failed",
                id: "failed:\(label):\(stage.name):\(entry.time.milliseconds):\(entry.key)",
                data: JSON.object([
                    "timer": .string(entry.key), "at": .string(entry.time.description), "stage": .string(stage.name),
                    "reason": .string("\(error)"),
                ]).canonical, source: topology.name)
        }
        try deliver()
        return true
    }

    func foldHead(_ index: Int) throws {
        let event = inputs[index].head()
        let late = inputs[index].headIsLate
        let through = inputs[index].completeThrough
        if !late { try cutIfDue(before: event.time) }
        inputs[index].advance()
        inputs[index].absorbProgress(progressDocument)
        if inputs[index].sorts { parkHeads(index) }
        try fold(event, index, late: late, through)
    }

    func foldWaiting() throws {
        guard let (event, index) = try takeWaiting() else {
            // A replay does not find it either.
            return try noteFailure("an event that waited for its turn", "retention took it away before that came")
        }
        try cutIfDue(before: event.time)
        try fold(event, index, late: false, inputs[index].completeThrough)
    }

    private func fold(_ event: StoredEvent, _ index: Int, late: Bool, _ through: Instant) throws {
        let partition = inputs[index].partition
        context.positions[index].next = max(context.positions[index].next, event.offset + 1)
        if let lastEvent, lastEvent == (index, event.offset) { stop() }
        context.isAmongOwn = false
        let isOurs = isOurs(partition)
        if isOurs { folded += 1 }
        if late { return try foldLate(event, index, isOurs: isOurs, through) }
        context.now = max(context.now, event.time)
        lastFired = nil
        let parsed: Bool? = event.withData { raw in (try? document.parse(raw)) != nil }
        guard parsed != false else { return try fail(event, partition, "the data is not JSON") }
        if parsed == true, hasReadings, let reason = lift(event, partition.topic) {
            return try fail(event, partition, reason)
        }
        let seen = StreamEvent(
            topic: partition.topic, time: event.time, document: document, stored: event, partition: partition.partition,
            derived: nil, derivedOffset: -1)
        if inputs[index].role == .answer, let request = seen.causation {
            _ = context.holds.remove(request)
        }
        try visit(
            inputStages[index], seen, erases: parsed == nil,
            {
                self.emitSide(
                    self.topology.side.unfolded, "stream.failed", event, partition, "\($0): \($1)", stage: $0)
            })
        try deliver()
    }

    /// A late event goes to the side; stages that allow for one so late process it all the same.
    private func foldLate(_ event: StoredEvent, _ index: Int, isOurs: Bool, _ through: Instant) throws {
        let partition = inputs[index].partition
        var reason = "its time, \(event.time.milliseconds) ms since 1970, is in none of the years 1 to 9999"
        if Instant.written.contains(event.time) {
            reason = "the partition was complete through \(through)"
            let lag = through.milliseconds - event.time.milliseconds
            let stages = inputStages[index].filter { topology.stages[$0].lateness(of: partition.topic) ?? -1 >= lag }
            if !stages.isEmpty {
                // Everything in time up to there was folded, and what counts is not of the future.
                context.now = max(context.now, event.time)
                if try process(event, partition, by: stages, lag: lag) {
                    reason += "; what allows for an event so late counts it"
                }
            }
        }
        guard isOurs else { return try deliver() }
        lateEvents += 1
        emitSide(topology.side.late, "stream.late", event, partition, reason)
        try deliver()
    }

    /// - Returns: false for data that nobody can read.
    private func process(
        _ event: StoredEvent, _ partition: TopicPartition, by stages: [Int], lag: Int64
    ) throws -> Bool {
        let parsed: Bool? = event.withData { raw in (try? document.parse(raw)) != nil }
        guard parsed == true, !hasReadings || lift(event, partition.topic) == nil else { return false }
        var seen = StreamEvent(
            topic: partition.topic, time: event.time, document: document, stored: event, partition: partition.partition,
            derived: nil, derivedOffset: -1)
        seen.lag = lag
        try visit(
            stages, seen,
            { self.emitSide(self.topology.side.unfolded, "stream.failed", event, partition, "\($0): \($1)", stage: $0) }
        )
        return true
    }

    /// Of several tasks that read an event, one counts it and records what is wrong with it.
    private func isOurs(_ partition: TopicPartition) -> Bool {
        guard let keyTasks else { return true }
        return context.isAmongOwn || partition.partition % keyTasks == context.partition
    }

    private func fail(_ event: StoredEvent, _ partition: TopicPartition, _ reason: String) throws {
        guard isOurs(partition) || topology.stopsAtFailure else { return }
        try noteFailure("\(partition)@\(event.offset)", reason)
        emitSide(topology.side.unfolded, "stream.failed", event, partition, reason)
        try deliver()
    }

    /// The fold goes on, or it ends here and begins again at its last checkpoint, as its topology says.
    private func noteFailure(_ place: String, _ reason: String) throws {
        failures += 1
        guard topology.stopsAtFailure else { return }
        throw StreamsError(
            "stopped-at-failure",
            "'\(topology.name)' stops at what it cannot fold, as it declares: \(place): \(reason). Mend the processor and start again; it goes on at its last checkpoint",
            fault: .headrace)
    }

    /// An error of a stage is the event's own: it is recorded beside its raw bytes and the fold goes on.
    private func visit(
        _ stages: [Int], _ event: StreamEvent, erases: Bool = false, _ dead: (_ stage: String, _ reason: String) -> Void
    ) throws {
        for index in stages {
            context.stage = index
            do {
                if erases {
                    try topology.stages[index].erase(event, context)
                } else {
                    try topology.stages[index].process(event, context)
                }
            } catch let error as any DescribedError where error.fault == .caller {
                let place = TopicPartition(event.topic, event.partition)
                guard event.derived != nil || isOurs(place) || topology.stopsAtFailure else { continue }
                try noteFailure(event.position.description, "\(error)")
                dead(topology.stages[index].name, "\(error)")
            }
        }
    }

    /// Hands emitted events to the later stages, in the order they were emitted, and then to the log.
    func deliver() throws {
        if let failure = context.placeFailure { throw failure }
        var index = 0
        while index < context.emitted.count {
            // A later stage may have been the one that missed a part of its state.
            try requireState()
            let derived = context.emitted[index]
            index += 1
            if let stages = subscribers[derived.topic], let data = derived.event.data {
                try derivedDocument.parse(data)
                let seen = StreamEvent(
                    topic: derived.topic, time: derived.event.time, document: derivedDocument, stored: nil,
                    partition: context.partition,
                    derived: derived.event, derivedOffset: derived.offset)
                try visit(stages, seen) { stage, reason in
                    self.context.emit(
                        topic: self.topology.side.unfolded, type: "stream.failed",
                        id: "failed:\(stage):\(derived.topic)\(self.task.map { "/\($0)" } ?? "")@\(derived.offset)",
                        data: JSON.object([
                            "topic": .string(derived.topic), "id": .string(derived.event.id), "stage": .string(stage),
                            "reason": .string(reason),
                        ]).canonical,
                        source: self.topology.name)
                }
            }
            if isSilent { continue }
            emittedCount += 1
            try sink.take(derived)
            if stopRequested { break }
        }
        if let failure = context.placeFailure { throw failure }
        try requireState()
        context.emitted.removeAll(keepingCapacity: true)
    }

    /// What is folded, or answered, with a part of the state missing is worth nothing.
    package func requireState() throws {
        if let failure = database.failure { throw failure }
    }

    private func emitSide(
        _ topic: String, _ type: String, _ event: StoredEvent, _ partition: TopicPartition, _ reason: String,
        stage: String = ""
    ) {
        let position = "\(partition)@\(event.offset)"
        let raw = event.data.map { String(decoding: $0, as: UTF8.self) } ?? ""
        context.emit(
            topic: topic, type: type, id: "\(type):\(topology.name):\(stage):\(position)",
            data: JSON.object([
                "position": .string(position), "reason": .string(reason), "raw": .string(raw), "id": .string(event.id),
            ]).canonical, causation: event.id, source: topology.name)
    }

    /// Makes what was emitted so far durable, so that effectors and views see it.
    package func flush() throws {
        try requireState()
        try sink.flush(consumed)
    }
}
