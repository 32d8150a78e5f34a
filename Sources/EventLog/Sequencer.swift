import Base
import RecordFormat

/// Decides offsets, sequences, partitions and duplicates of appends in the order in which they come. Pure: it waits on
/// nothing and touches no file.
struct Sequencer: Sendable {
    private(set) var layouts: [String: TopicLayout] = [:]
    private var topicSeeds: [String: UInt64] = [:]
    private(set) var partitions: [TopicPartition] = []
    private var numbers: [TopicPartition: Int] = [:]
    private(set) var nextOffsets: [Int64] = []
    var identifiers = IdentifierHistory()
    var producers = ProducerTable()
    /// Newest epoch of every registered producer.
    var epochs: [Int64: Int16] = [:]
    var nextSequence: UInt64 = 0
    private(set) var nextTicket = 0
    var pendingBytes = 0
    var stopped: EventLogError?
    var closing = false
    /// Encoded frames by ticket, waiting for their turn.
    var ready: [Int: EmbeddedLog.Ready] = [:]
    var writeTicket = 0

    /// What was decided about one append.
    struct Plan {
        var ticket = 0
        var firstSequence: UInt64 = 0
        var receipts: [EventReceipt] = []
        /// Per batch: partition, base offset, indices of the append's events, whether ids count.
        var batches: [(partition: TopicPartition, baseOffset: Int64, events: [Int], isDeduplicated: Bool)] = []
        var interleave: [(batch: Int, count: Int)] = []
        var identifiers: [(hash: (UInt64, UInt64), partition: TopicPartition, offset: Int64)] = []
        var cost = 0
    }

    struct BatchPlan {
        let ticket: Int
        let firstSequence: UInt64
        let baseOffset: Int64
        let isDuplicate: Bool
        let cost: Int
    }

    mutating func number(of partition: TopicPartition) -> Int {
        if let known = numbers[partition] { return known }
        numbers[partition] = partitions.count
        partitions.append(partition)
        nextOffsets.append(0)
        return partitions.count - 1
    }

    mutating func setNextOffset(_ partition: TopicPartition, _ offset: Int64) {
        nextOffsets[number(of: partition)] = offset
    }

    mutating func declare(_ layout: TopicLayout) throws(EventLogError) {
        guard TopicName.partitions.contains(layout.partitions), TopicName.isLegal(layout.name) else {
            throw EventLogError(
                "bad-topic",
                "the topic '\(layout.name)' needs 1 to 1024 partitions and a name of at most \(Limits.nameLength) letters, digits, '.', '_' or '-'"
            )
        }
        if let known = layouts[layout.name], known.partitions != layout.partitions {
            throw EventLogError(
                "topic-conflict",
                "the topic '\(layout.name)' has \(known.partitions) partitions; their number cannot become \(layout.partitions)"
            )
        }
        let highest = partitions.filter { $0.topic == layout.name }.map(\.partition).max() ?? 0
        guard highest < layout.partitions else {
            throw EventLogError(
                "topic-conflict",
                "the topic '\(layout.name)' has events in partition \(highest); their number cannot become \(layout.partitions)"
            )
        }
        layouts[layout.name] = layout
        topicSeeds[layout.name] = IdentifierTable.topicSeed(layout.name)
        for partition in 0..<layout.partitions { _ = number(of: TopicPartition(layout.name, partition)) }
    }

    /// What every append must pass before anything is assigned.
    private func admit(refusable: Bool) throws(EventLogError) {
        if let stopped { throw stopped }
        guard !closing else {
            throw EventLogError("log-stopped", "the log is closing", fault: .world, retriable: true)
        }
        guard !refusable || pendingBytes < Limits.pendingAppends else {
            throw EventLogError(
                "log-saturated",
                "\(pendingBytes) bytes wait for the disk, the limit is \(Limits.pendingAppends); try again",
                fault: .world, retriable: true)
        }
    }

    private func layout(_ topic: String) throws(EventLogError) -> TopicLayout {
        guard let layout = layouts[topic] else {
            throw EventLogError(
                "unknown-topic", "there is no topic '\(topic)'; declare it in a workspace and apply that")
        }
        return layout
    }

    private mutating func takeTicket(cost: Int) -> Int {
        defer { nextTicket += 1 }
        pendingBytes += cost
        return nextTicket
    }

    // MARK: Batches

    mutating func decide(
        _ append: BatchAppend, _ batch: EncodedBatch, now: Int64
    ) throws(EventLogError) -> BatchPlan {
        try admit(refusable: append.refusable)
        let layout = try layout(append.partition.topic)
        guard !layout.isCompacted || !batch.hasKeylessRecord else {
            throw EventLogError(
                "key-required",
                "the topic '\(layout.name)' keeps the newest event of each key, so every record needs one")
        }
        guard append.partition.partition >= 0, append.partition.partition < layout.partitions else {
            throw unknownPartition(layout, append.partition.partition)
        }
        let number = number(of: append.partition)
        if !batch.producer.isNone {
            if let epoch = epochs[batch.producer.id], batch.producer.epoch < epoch {
                throw EventLogError(
                    "producer-fenced",
                    "producer \(batch.producer.id) has epoch \(batch.producer.epoch), but \(epoch) was given out; stop, another one took over"
                )
            }
            let verdict = try producers.check(
                batch.producer, count: batch.count, partition: append.partition)
            if case .duplicate(let offset) = verdict {
                return BatchPlan(
                    ticket: takeTicket(cost: 0), firstSequence: nextSequence, baseOffset: offset, isDuplicate: true,
                    cost: 0)
            }
        }
        let offset = nextOffsets[number]
        if let expected = append.expectedOffset, expected != offset {
            throw conflict(append.partition, expected: expected, actual: offset)
        }
        producers.note(
            batch.producer, count: batch.count, partition: append.partition, offset: offset,
            recordedTime: now)
        nextOffsets[number] += Int64(batch.count)
        defer { nextSequence += UInt64(batch.count) }
        let cost = batch.bytes.count + 256
        return BatchPlan(
            ticket: takeTicket(cost: cost), firstSequence: nextSequence, baseOffset: offset, isDuplicate: false,
            cost: cost)
    }

    private func conflict(_ partition: TopicPartition, expected: Int64, actual: Int64) -> EventLogError {
        EventLogError(
            "offset-conflict",
            "\(partition) ends at offset \(actual), not at \(expected) as expected: somebody wrote in between; read on and decide again",
            cause: OffsetConflict(partition: partition, expected: expected, actual: actual))
    }

    private func unknownPartition(_ layout: TopicLayout, _ partition: Int) -> EventLogError {
        EventLogError(
            "unknown-partition",
            "the topic '\(layout.name)' has partitions 0 to \(layout.partitions - 1), not \(partition)")
    }

    // MARK: Events

    mutating func decide(_ append: LogAppend, now: Int64) throws(EventLogError) -> Plan {
        try admit(refusable: append.refusable)
        let targets = try targets(of: append)
        let hashes = hashes(of: append, targets)
        let known = try duplicates(in: append, targets, hashes, now: now)
        try checkExpected(append, targets, known)
        var plan = Plan()
        plan.firstSequence = nextSequence
        plan.receipts.reserveCapacity(append.events.count)
        var batchOf: [Int: Int] = [:]
        // By index: an event that is taken out of its array is copied, with everything it holds on to.
        for index in append.events.indices {
            let (number, deduplicated) = targets[index]
            let partition = partitions[number]
            let offset = nextOffsets[number]
            var hash: (UInt64, UInt64)?
            if deduplicated {
                let value = hashes[index]
                hash = value
                // The second of two equal ids in one append stands where the first one was just put.
                if let original = known[index] ?? place(identifiers.active.find(value)) {
                    plan.receipts.append(EventReceipt(position: original, duplicate: true))
                    continue
                }
            }
            nextOffsets[number] += 1
            let batch: Int
            if let open = batchOf[number] {
                batch = open
            } else {
                batch = plan.batches.count
                batchOf[number] = batch
                plan.batches.append((partition, offset, [], deduplicated))
            }
            plan.batches[batch].events.append(index)
            if let last = plan.interleave.last, last.batch == batch {
                plan.interleave[plan.interleave.count - 1].count += 1
            } else {
                plan.interleave.append((batch, 1))
            }
            if let hash {
                identifiers.insert(hash, partition: UInt32(number), offset: offset)
                plan.identifiers.append((hash, partition, offset))
            }
            plan.receipts.append(
                EventReceipt(
                    position: Position(
                        topic: partition.topic, partition: partition.partition, offset: offset, sequence: nextSequence),
                    duplicate: false))
            nextSequence += 1
            plan.cost += (append.events[index].event.data?.count ?? 0) + 256
        }
        plan.ticket = takeTicket(cost: plan.cost)
        return plan
    }

    private func hashes(
        of append: LogAppend, _ targets: [(number: Int, deduplicated: Bool)]
    ) -> [(UInt64, UInt64)] {
        var hashes: [(UInt64, UInt64)] = []
        hashes.reserveCapacity(targets.count)
        var last = (number: -1, seed: UInt64(0))
        for index in append.events.indices {
            guard targets[index].deduplicated else {
                hashes.append((0, 0))
                continue
            }
            if targets[index].number != last.number {
                last = (targets[index].number, topicSeeds[append.events[index].topic] ?? 0)
            }
            hashes.append(
                IdentifierTable.hash(
                    topic: last.seed, source: append.events[index].event.source, id: append.events[index].event.id))
        }
        return hashes
    }

    private func place(_ found: (UInt32, Int64)?) -> Position? {
        guard let found else { return nil }
        let partition = partitions[Int(found.0)]
        return Position(topic: partition.topic, partition: partition.partition, offset: found.1, sequence: nil)
    }

    private struct IdentifierKey: Hashable {
        let first: UInt64
        let second: UInt64
    }

    /// Where events of the append stand already, by their index.
    private func duplicates(
        in append: LogAppend, _ targets: [(number: Int, deduplicated: Bool)], _ hashes: [(UInt64, UInt64)], now: Int64
    ) throws(EventLogError) -> [Int: Position] {
        var result: [Int: Position] = [:]
        var seen: Set<IdentifierKey> = []
        for index in append.events.indices where targets[index].deduplicated {
            let hash = hashes[index]
            guard append.expected.isEmpty || seen.insert(IdentifierKey(first: hash.0, second: hash.1)).inserted else {
                throw EventLogError(
                    "bad-append",
                    "an append with expected offsets holds the id '\(append.events[index].event.id)' twice; send it once"
                )
            }
            switch identifiers.find(hash) {
            case .absent: continue
            case .memory(let partition, let offset): result[index] = place((partition, offset))
            case .file(let partition, let offset, let recorded):
                if case .milliseconds(let horizon) = layouts[append.events[index].topic]?.deduplication,
                    now - recorded > horizon
                {
                    continue
                }
                result[index] = Position(
                    topic: partition.topic, partition: partition.partition, offset: offset, sequence: nil)
            case .damaged:
                throw EventLogError(
                    "ids-damaged",
                    "a table of event ids is damaged and is being built again from the log; try again in a moment",
                    fault: .world, retriable: true)
            }
        }
        return result
    }

    private func checkExpected(
        _ append: LogAppend, _ targets: [(number: Int, deduplicated: Bool)], _ known: [Int: Position]
    ) throws(EventLogError) {
        guard !append.expected.isEmpty else { return }
        var expected: [Int: Int64] = [:]
        for (partition, offset) in append.expected {
            guard let number = numbers[partition], targets.contains(where: { $0.number == number }) else {
                throw EventLogError(
                    "bad-append", "an offset of \(partition) is expected, but the append has no event for it")
            }
            expected[number] = offset
        }
        var next = nextOffsets
        for (index, target) in targets.enumerated() {
            guard let offset = expected[target.number] else { continue }
            if known[index] == nil {
                guard next[target.number] == offset else {
                    throw conflict(partitions[target.number], expected: offset, actual: next[target.number])
                }
                next[target.number] += 1
            }
            expected[target.number] = offset + 1
        }
    }

    /// The partition of every event. Everything that can be refused is refused before anything is assigned.
    private mutating func targets(of append: LogAppend) throws(EventLogError) -> [(number: Int, deduplicated: Bool)] {
        var targets: [(number: Int, deduplicated: Bool)] = []
        targets.reserveCapacity(append.events.count)
        var layout: TopicLayout?
        // Of the last event: most appends go on in the same place.
        var (last, number) = (-1, -1)
        for index in append.events.indices {
            if layout?.name != append.events[index].topic {
                layout = try self.layout(append.events[index].topic)
                last = -1
            }
            guard let layout else { continue }
            // Progress belongs to the partition, not to a key, and always stays.
            guard
                !layout.isCompacted || append.events[index].event.key != nil
                    || append.events[index].event.type == EventType.progress
            else {
                throw EventLogError(
                    "key-required",
                    "the topic '\(layout.name)' keeps the newest event of each key, so the event '\(append.events[index].event.id)' needs one"
                )
            }
            let chosen =
                append.events[index].partition
                ?? (layout.partitions == 1 ? 0 : Sequencer.partition(of: append.events[index].event, layout))
            guard chosen >= 0, chosen < layout.partitions else { throw unknownPartition(layout, chosen) }
            if chosen != last { (last, number) = (chosen, self.number(of: TopicPartition(layout.name, chosen))) }
            targets.append((number, layout.deduplication != .never))
        }
        return targets
    }

    private static func partition(of event: NewEvent, _ layout: TopicLayout) -> Int {
        murmur2Partition(event.key ?? [UInt8](event.id.utf8), partitions: layout.partitions)
    }
}
