import Base
import EventLog
@preconcurrency import Foundation
import RecordFormat
import Testing

/// What every log promises that declares the capability, each under its name. The same for every implementation.
struct LogPromise: Sendable, CustomStringConvertible {
    let description: String
    let needs: LogCapabilities
    let check: @Sendable (any EventLog) async throws -> Void

    init(
        _ description: String, needs: LogCapabilities = [],
        _ check: @escaping @Sendable (any EventLog) async throws -> Void
    ) {
        self.description = description
        self.needs = needs
        self.check = check
    }
}

private let a = TopicPartition("a", 0)

private func event(_ id: String, time: Int64 = 0, key: String? = nil, data: String? = "x") -> NewEvent {
    NewEvent(
        id: id, source: "test", type: "t", time: Instant(milliseconds: time), key: key.map { [UInt8]($0.utf8) },
        data: data.map { [UInt8]($0.utf8) })
}

private func batch(_ values: [String], time: Int64 = 0, producer: ProducerStamp = .none) -> EncodedBatch {
    var builder = RecordBatchBuilder()
    for value in values {
        [UInt8](value.utf8).withUnsafeBytes { builder.append(key: nil, value: $0, time: time) }
    }
    return builder.finish(producer: producer)
}

private func values(_ log: any EventLog, _ partition: TopicPartition) throws -> [String] {
    var result: [String] = []
    try log.forEachEvent(partition) { event in
        result.append(event.data.map { String(decoding: $0, as: UTF8.self) } ?? "–")
        return true
    }
    return result
}

private func add(_ log: any EventLog, _ count: Int, to topic: String = "a", from first: Int = 0) throws {
    _ = try log.append(
        LogAppend(
            principal: "p",
            events: (first..<first + count).map {
                (topic, nil, event("\(topic)\($0)", time: Int64($0 * 10), data: "\($0)"))
            }))
}

let logPromises: [LogPromise] = [
    LogPromise("an acknowledged event stands where its receipt says") { log in
        let receipt = try log.append(
            LogAppend(
                principal: "p", events: [("a", nil, event("1", data: "one")), ("a", nil, event("2", data: "two"))]))
        #expect(receipt.events.map(\.position.offset) == [0, 1])
        #expect(receipt.durability == log.durability)
        #expect(try values(log, a) == ["one", "two"])
        #expect(try log.offsets(a).lowerBound == 0 && log.offsets(a).upperBound >= 2)
    },
    LogPromise("a repeated id is answered with the first position", needs: .idDeduplication) { log in
        try add(log, 3)
        let again = try log.append(
            LogAppend(principal: "p", events: [("a", nil, event("a1")), ("a", nil, event("new"))]))
        #expect(again.events[0].duplicate && again.events[0].position.offset == 1)
        #expect(!again.events[1].duplicate && again.events[1].position.offset == 3)
        // The same id of another source, and in another topic, is another event.
        let other = NewEvent(
            id: "a1", source: "elsewhere", type: "t", time: event("a1").time, data: event("a1").data)
        #expect(try log.append(LogAppend(principal: "p", events: [("a", nil, other)])).events[0].duplicate == false)
        #expect(try log.append(LogAppend(principal: "p", events: [("b", 0, event("a1"))])).events[0].duplicate == false)
        // Twice in one append.
        let twice = try log.append(LogAppend(principal: "p", events: [("a", nil, event("t")), ("a", nil, event("t"))]))
        #expect(twice.events.map(\.duplicate) == [false, true])
        #expect(twice.events[0].position.offset == twice.events[1].position.offset)
    },
    LogPromise("an expected offset that does not hold is a typed conflict", needs: .expectedOffset) { log in
        try add(log, 2)
        #expect(
            errorCode {
                _ = try log.append(LogAppend(principal: "p", events: [("a", nil, event("x"))], expected: [a: 1]))
            } == "offset-conflict")
        do {
            _ = try log.append(LogAppend(principal: "p", events: [("a", nil, event("x"))], expected: [a: 7]))
        } catch {
            let cause = (error as? EventLogError)?.cause as? OffsetConflict
            #expect(cause?.expected == 7 && cause?.actual == 2 && cause?.partition == a)
        }
        let taken = try log.append(
            LogAppend(principal: "p", events: [("a", nil, event("x")), ("a", nil, event("y"))], expected: [a: 2]))
        #expect(taken.events.map(\.position.offset) == [2, 3])
        // Sent again, the same append is recognised and is no conflict.
        let again = try log.append(
            LogAppend(principal: "p", events: [("a", nil, event("x")), ("a", nil, event("y"))], expected: [a: 2]))
        #expect(again.events.allSatisfy(\.duplicate) && again.events.map(\.position.offset) == [2, 3])
        #expect(
            errorCode {
                _ = try log.append(BatchAppend(principal: "p", partition: a, batch: batch(["z"]), expectedOffset: 3))
            }
                == "offset-conflict")
        #expect(
            try log.append(BatchAppend(principal: "p", partition: a, batch: batch(["z"]), expectedOffset: 4)).position
                .offset == 4)
    },
    LogPromise(
        "an append over several topics happens as a whole and keeps its order",
        needs: [.atomicMultiTopic, .globalSequence]
    ) { log in
        let receipt = try log.append(
            LogAppend(
                principal: "p",
                events: [("a", nil, event("1")), ("b", 2, event("2")), ("a", nil, event("3")), ("b", 0, event("4"))]))
        #expect(receipt.events.compactMap(\.position.sequence) == [0, 1, 2, 3])
        #expect(
            errorCode {
                _ = try log.append(
                    LogAppend(principal: "p", events: [("a", nil, event("5")), ("nope", nil, event("6"))]))
            } == "unknown-topic")
        #expect(try log.offsets(a) == 0..<2)
    },
    LogPromise("an idempotent producer is held to its sequence", needs: .idempotentProducers) { log in
        let me = try log.registerProducer(named: "me")
        func send(_ values: [String], _ sequence: Int32, epoch: Int16? = nil) throws -> BatchReceipt {
            let stamp = ProducerStamp(id: me.id, epoch: epoch ?? me.epoch, sequence: sequence)
            return try log.append(BatchAppend(principal: "p", partition: a, batch: batch(values, producer: stamp)))
        }
        #expect(try send(["0", "1"], 0).position.offset == 0)
        #expect(try send(["2"], 2).position.offset == 2)
        let again = try send(["0", "1"], 0)
        #expect(again.duplicate && again.position.offset == 0)
        // Neither a gap, nor a part of a known batch, nor one that is longer.
        for (values, sequence) in [(["x"], Int32(5)), (["1"], 1), (["0", "1", "2"], 0)] {
            #expect(errorCode { _ = try send(values, sequence) } == "out-of-order-sequence")
        }
        for number in 0..<4 { _ = try send(["n\(number)"], Int32(3 + number)) }
        // Five batches are remembered; the sixth last is no longer told from a mistake.
        #expect(try send(["2"], 2).duplicate)
        #expect(errorCode { _ = try send(["0", "1"], 0) } == "out-of-order-sequence")
        let next = try log.registerProducer(named: "me")
        #expect(next.id == me.id && next.epoch == me.epoch + 1)
        #expect(errorCode { _ = try send(["7"], 7) } == "producer-fenced")
        #expect(errorCode { _ = try send(["7"], 7, epoch: next.epoch) } == "out-of-order-sequence")
        #expect(try send(["7"], 0, epoch: next.epoch).position.offset == 7)
        #expect(try log.registerProducer(named: nil).id != me.id)
    },
    LogPromise("sequence numbers wrap from Int32.max to 0", needs: .idempotentProducers) { log in
        let me = try log.registerProducer(named: nil)
        // Nobody knows this producer here yet, so any sequence may begin.
        for (values, sequence, offset) in [(["a", "b"], Int32.max - 1, Int64(0)), (["c"], 0, 2), (["d", "e"], 1, 3)] {
            let stamp = ProducerStamp(id: me.id, epoch: me.epoch, sequence: sequence)
            let receipt = try log.append(
                BatchAppend(principal: "p", partition: a, batch: batch(values, producer: stamp)))
            #expect(receipt.position.offset == offset && !receipt.duplicate)
        }
    },
    LogPromise("relaxed durability is named, and readers see the events in a moment", needs: .relaxedDurability) {
        log in
        let receipt = try log.append(LogAppend(principal: "p", events: [("a", nil, event("r"))], durability: .relaxed))
        #expect(receipt.durability == .relaxed)
        var version: UInt64 = 0
        for _ in 0..<100 where try log.offsets(a).isEmpty { version = log.waitForChange(after: version, seconds: 0.1) }
        #expect(try log.offsets(a) == 0..<1)
    },
    LogPromise("the first event at or after a time is found, whatever the order of times") { log in
        // Offsets as receipts say them: where a log has markers, they stand in between.
        var offsets: [Int64] = []
        for (number, time) in [100, 50, 400, 300, 900, 20].enumerated() {
            offsets += try log.append(
                LogAppend(principal: "p", events: [("a", nil, event("\(number)", time: Int64(time)))])
            ).events.map(\.position.offset)
        }
        for (time, number) in [(0, 0), (50, 0), (101, 2), (401, 4), (900, 4)] {
            #expect(try log.offset(a, atOrAfter: Instant(milliseconds: Int64(time))) == offsets[number])
        }
        #expect(try log.offset(a, atOrAfter: Instant(milliseconds: 901)) == log.offsets(a).upperBound)
    },
    LogPromise("what is trimmed is refused by name", needs: [.trim]) { log in
        try add(log, 10)
        let end = try log.offsets(a).upperBound
        try log.trim(a, before: 4)
        #expect(try log.offsets(a) == 4..<end)
        #expect(errorCode { _ = try log.read(a, from: 3, maxBytes: 1) } == "trimmed")
        #expect(errorCode { _ = try log.follow([a: 3]) } == "trimmed")
        #expect(try values(log, a) == ["4", "5", "6", "7", "8", "9"])
        #expect(errorCode { try log.trim(a, before: end + 100) } == "bad-offset")
        try add(log, 1, from: 10)
        #expect(try values(log, a) == ["4", "5", "6", "7", "8", "9", "10"])
    },
    LogPromise("an append over several topics happens as a whole", needs: [.atomicMultiTopic]) { log in
        let receipt = try log.append(
            LogAppend(
                principal: "p",
                events: [("a", nil, event("1")), ("b", 2, event("2")), ("a", nil, event("3")), ("b", 0, event("4"))]))
        #expect(receipt.events.map(\.position.description) == ["a/0@0", "b/2@0", "a/0@1", "b/0@0"])
        let end = try log.offsets(a).upperBound
        for events in [
            [("a", nil, event("5")), ("nope", nil, event("6"))], [("a", nil, event("5")), ("b", 7, event("6"))],
        ] as [[(topic: String, partition: Int?, event: NewEvent)]] {
            #expect(
                ["unknown-topic", "unknown-partition"].contains(
                    errorCode { _ = try log.append(LogAppend(principal: "p", events: events)) }))
        }
        #expect(try log.offsets(a).upperBound == end)
        #expect(try values(log, a) == ["x", "x"] && values(log, TopicPartition("b", 2)) == ["x"])
    },
    LogPromise("keys, empty and missing data, headers and early times come back as they went") { log in
        let plain = event("full", time: 1_700_000_000_123, key: "k", data: "{}")
        let sent = NewEvent(
            id: plain.id, source: plain.source, type: plain.type, time: plain.time, key: plain.key, subject: "s",
            contentType: plain.contentType, data: plain.data, causation: "c",
            extensions: [("ce_note", "ü"), ("ce_empty", "")])
        let events = [
            sent, event("empty", key: "", data: ""), event("tombstone", key: "k", data: nil),
            event("early", time: -5_000), event("zero", time: 0),
            event("long", data: String(repeating: "y", count: 3 << 20)),
        ]
        _ = try log.append(LogAppend(principal: "p", events: events.map { ("a", nil, $0) }))
        var found: [StoredEvent] = []
        try log.forEachEvent(a) { event in
            found.append(event)
            return true
        }
        #expect(found.map(\.id) == events.map(\.id) && found.map(\.data) == events.map(\.data))
        #expect(found.map(\.time) == events.map(\.time))
        #expect(found.map(\.key) == events.map(\.key))
        let headers = found.first?.headers.map { "\($0.name)=\($0.value)" } ?? []
        for wanted in [
            "ce_subject=s", "ce_causationid=c", "ce_note=ü", "ce_empty=", "ce_id=full", "ce_specversion=1.0",
        ] {
            #expect(headers.contains(wanted))
        }
    },
    LogPromise("encoded batches go to their partition in order") { log in
        let receipts = try (0..<20).map { number in
            try log.append(
                BatchAppend(
                    principal: "p", partition: TopicPartition("b", 1),
                    batch: batch(["\(number)a", "\(number)b"], time: Int64(number - 3))))
        }
        #expect(receipts.map(\.position.offset) == (0..<20).map { Int64($0 * 2) })
        #expect(try values(log, TopicPartition("b", 1)) == (0..<20).flatMap { ["\($0)a", "\($0)b"] })
        var times: [Int64] = []
        try log.forEachEvent(TopicPartition("b", 1)) { event in
            times.append(event.time.milliseconds)
            return true
        }
        let twice: [Int64] = (-3..<17).flatMap { (time: Int64) -> [Int64] in [time, time] }
        #expect(times == twice)
    },
    LogPromise("many readers at their own positions each get everything") { log in
        for round in 0..<20 { try add(log, 50, from: round * 50) }
        let whole = try values(log, a)
        #expect(whole == (0..<1000).map { "\($0)" })
        let ends = try log.offsets(a)
        let sums = await withTaskGroup(of: Bool.self) { group in
            for number in 0..<24 {
                group.addTask {
                    await withCheckedContinuation { continuation in
                        _ = BlockingThread(name: "reader") {
                            var texts: [String] = []
                            let from = Int64(number * 37)
                            try? log.forEachEvent(a, from: from) { event in
                                texts.append(event.data.map { String(decoding: $0, as: UTF8.self) } ?? "–")
                                return true
                            }
                            continuation.resume(
                                returning: texts == Array(whole.suffix(texts.count)) && !texts.isEmpty
                                    && Int64(texts.count) <= ends.upperBound - from)
                        }
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(sums.count == 24 && sums.allSatisfy { $0 })
    },
    LogPromise("what a log lacks is refused by name") { log in
        let me = ProducerStamp(id: 1, epoch: 0, sequence: 0)
        let missing: [(LogCapabilities, () throws -> Void)] = [
            (
                .expectedOffset,
                { _ = try log.append(LogAppend(principal: "p", events: [("a", nil, event("x"))], expected: [a: 0])) }
            ),
            (
                .expectedOffset,
                {
                    _ = try log.append(
                        BatchAppend(principal: "p", partition: a, batch: batch(["z"]), expectedOffset: 0))
                }
            ),
            (.idempotentProducers, { _ = try log.registerProducer(named: nil) }),
            (
                .idempotentProducers,
                { _ = try log.append(BatchAppend(principal: "p", partition: a, batch: batch(["z"], producer: me))) }
            ),
            (.pins, { try log.pin(Pin(name: "p", ranges: [a: 0..<0])) }), (.pins, { try log.unpin("p") }),
            (
                .relaxedDurability,
                {
                    _ = try log.append(
                        LogAppend(principal: "p", events: [("a", nil, event("x"))], durability: .relaxed))
                }
            ),
            (
                .idDeduplication,
                { try log.declare(TopicLayout(name: "c", partitions: 1, deduplication: .milliseconds(1000))) }
            ),
            (.transactions, { _ = try log.transactionalWriter(named: "w") }),
        ]
        for (capability, deed) in missing where !log.capabilities.contains(capability) {
            #expect(errorCode(deed) == "unsupported")
        }
    },
    LogPromise("what is trimmed is refused by name, and a pin prevents it", needs: [.trim, .pins]) { log in
        try add(log, 10)
        try log.pin(Pin(name: "model", ranges: [a: 4..<6]))
        #expect(errorCode { try log.trim(a, before: 5) } == "pinned")
        try log.trim(a, before: 4)
        #expect(try log.offsets(a) == 4..<10)
        #expect(errorCode { _ = try log.read(a, from: 3, maxBytes: 1) } == "trimmed")
        #expect(errorCode { _ = try log.follow([a: 3]) } == "trimmed")
        #expect(try values(log, a) == ["4", "5", "6", "7", "8", "9"])
        #expect(errorCode { try log.pin(Pin(name: "late", ranges: [a: 2..<5])) } == "bad-offset")
        try log.unpin("model")
        try log.trim(a, before: 10)
        #expect(try log.offsets(a) == 10..<10 && log.pins.isEmpty)
        #expect(errorCode { try log.trim(a, before: 11) } == "bad-offset")
        #expect(
            try log.append(LogAppend(principal: "p", events: [("a", nil, event("next"))])).events[0].position.offset
                == 10)
    },
    LogPromise("three thousand followers get everything in order, as fast as they ask") { log in
        try add(log, 50)
        let sums = try await withThrowingTaskGroup(of: (Int, Bool).self) { group in
            for number in 0..<3000 {
                group.addTask {
                    let from = Int64(number % 40)
                    let follower = try log.follow([a: from])
                    var seen = from
                    var last = from - 1
                    var ordered = true
                    while seen < 300, let page = try await follower.next() {
                        for batch in page.batches {
                            for index in batch.records.indices where batch.records[index].offset >= page.from {
                                // The data says which event it is, the offset that none comes twice.
                                let event = StoredEvent(batch: batch, index: index)
                                ordered = ordered && event.offset > last && event.data == [UInt8]("\(seen)".utf8)
                                last = event.offset
                                seen += 1
                            }
                        }
                    }
                    return (Int(seen), ordered)
                }
            }
            for round in 0..<25 {
                _ = try await log.appendAndWait(
                    LogAppend(
                        principal: "p",
                        events: (0..<10).map {
                            ("a", nil, event("f\(round)-\($0)", data: "\(50 + round * 10 + $0)"))
                        }))
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(sums.count == 3000 && sums.allSatisfy { $0.0 == 300 && $0.1 })
    },
    LogPromise("a follower of many partitions takes turns and ends when its task does") { log in
        try add(log, 5)
        _ = try log.append(
            LogAppend(principal: "p", events: (0..<3).map { (number: Int) in ("b", number, event("b\(number)")) }))
        let positions: [TopicPartition: Int64] = [
            a: 0, TopicPartition("b", 0): 0, TopicPartition("b", 1): 0, TopicPartition("b", 2): 0,
        ]
        let seen = Monitor<Set<TopicPartition>>([])
        let task = Task {
            let follower = try log.follow(positions)
            while let page = try await follower.next() { seen.update { _ = $0.insert(page.partition) } }
        }
        for _ in 0..<500 where seen.withLock({ $0.count }) < 4 { try await Task.sleep(for: .milliseconds(20)) }
        #expect(seen.withLock { $0 } == Set(positions.keys))
        task.cancel()
        try await task.value
    },
]

@Suite struct LogConformanceTests {
    @Test(arguments: logPromises) func theEmbeddedLogKeeps(promise: LogPromise) async throws {
        let scratch = try ScratchDirectory()
        let log = try EmbeddedLogTests.open(scratch.path)
        #expect(log.capabilities.isSuperset(of: promise.needs))
        try await promise.check(log)
        #expect(try log.verify().isIntact)
        log.close()
    }
}
