import Base
import EventLog
import Foundation
import RecordFormat

/// The work that the log's figures measure. Small, the same bodies run in the tests.
package enum LogBodies {
    package static let topic = TopicPartition("flights.departed", 0)

    /// Events per second, and the latency of single answers in milliseconds.
    package struct Result: Sendable {
        package let perSecond: Double
        package let p50: Double
        package let p99: Double
    }

    package static func seconds(_ body: () throws -> Void) rethrows -> Double {
        let start = DispatchTime.now().uptimeNanoseconds
        try body()
        return Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9
    }

    /// Plain records in batches of so many bytes before compression, LZ4, synced, no event ids; so many batches under way.
    package static func appendPlain(
        _ log: any EventLog, payloads: [[UInt8]], events: Int, producers: Int = 2, underWay: Int = 5,
        batchBytes: Int = 64 << 10, encodes: Bool = true
    ) throws -> Result {
        try log.declare(TopicLayout(name: topic.topic, partitions: 1, deduplication: .never))
        let state = Monitor((free: underWay, left: events, done: 0, failure: EventLogError?.none))
        let elapsed = seconds {
            let threads = (0..<producers).map { producer in
                BlockingThread(name: "producer") {
                    var next = producer * 7919 % payloads.count
                    while true {
                        var builder = RecordBatchBuilder(capacity: batchBytes + (8 << 10))
                        while builder.size < batchBytes {
                            payloads[next].withUnsafeBytes { payload in
                                let key = UnsafeRawBufferPointer(rebasing: payload[10..<min(16, payload.count)])
                                builder.append(key: key, value: payload, time: Int64(next))
                            }
                            next = next + 1 == payloads.count ? 0 : next + 1
                        }
                        let batch =
                            encodes
                            ? BatchAppend(principal: "bench", partition: topic, batch: builder.finish())
                            : BatchAppend(principal: "bench", partition: topic, records: builder)
                        let goesOn = state.wait { state -> Bool? in
                            if state.left <= 0 || state.failure != nil { return false }
                            guard state.free > 0 else { return nil }
                            state.free -= 1
                            state.left -= batch.count
                            return true
                        }
                        guard goesOn == true else { return }
                        log.append(batch) { result in
                            state.update { state in
                                state.free += 1
                                switch result {
                                case .success: state.done += batch.count
                                case .failure(let error): state.failure = error
                                }
                            }
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            _ = state.wait { $0.free == underWay ? true : nil }
        }
        if let failure = state.withLock({ $0.failure }) { throw failure }
        return Result(perSecond: Double(state.withLock { $0.done }) / elapsed, p50: 0, p99: 0)
    }

    /// Reads a topic from its beginning on one thread, so many records.
    package static func consume(_ log: any EventLog, events: Int) throws -> Result {
        var seen = 0
        var bytes = 0
        var next: Int64 = 0
        func page() throws -> Bool {
            let batches = try log.read(topic, from: next, maxBytes: 1 << 20)
            guard let last = batches.last else { return false }
            for batch in batches {
                seen += batch.records.count
                for record in batch.records { bytes += Int(record.valueCount) }
            }
            next = last.header.lastOffset + 1
            return true
        }
        // As in the peer's program, the clock starts with the first records: a broker may send a partition in one piece.
        _ = try page()
        let before = seen
        let elapsed = try seconds { while seen < events, try page() {} }
        guard seen >= events, bytes > 0 else {
            throw EventLogError("bench", "\(seen) of \(events) records were read", fault: .world)
        }
        return Result(perSecond: Double(seen - before) / elapsed, p50: 0, p99: 0)
    }

    /// Events with all their attributes, ids checked, 350 an append; so many appends under way.
    package static func appendEvents(
        _ log: any EventLog, payloads: [[UInt8]], events: Int, producers: Int = 2, underWay: Int = 5, size: Int = 350,
        from start: Int = 0
    ) throws -> Result {
        let topic = "flights.events"
        try log.declare(TopicLayout(name: topic, partitions: 1))
        let state = Monitor((free: underWay, next: start, failure: EventLogError?.none))
        let elapsed = seconds {
            let threads = (0..<producers).map { _ in
                BlockingThread(name: "producer") {
                    while true {
                        let first = state.wait { state -> Int? in
                            if state.next >= start + events || state.failure != nil { return -1 }
                            guard state.free > 0 else { return nil }
                            state.free -= 1
                            state.next += size
                            return state.next - size
                        }
                        guard let first, first >= 0 else { return }
                        var batch: [(topic: String, partition: Int?, event: NewEvent)] = []
                        batch.reserveCapacity(size)
                        for number in first..<first + size {
                            let payload = payloads[number % payloads.count]
                            batch.append(
                                (
                                    topic, 0,
                                    NewEvent(
                                        id: "f\(number)", source: "bench", type: "flight.departed",
                                        time: Instant(milliseconds: Int64(number)), key: Array(payload[10..<16]),
                                        data: payload)
                                ))
                        }
                        log.append(LogAppend(principal: "bench", events: batch)) { result in
                            state.update { state in
                                state.free += 1
                                if case .failure(let error) = result { state.failure = error }
                            }
                        }
                    }
                }
            }
            for thread in threads { thread.join() }
            _ = state.wait { $0.free == underWay ? true : nil }
        }
        if let failure = state.withLock({ $0.failure }) { throw failure }
        return Result(perSecond: Double((events + size - 1) / size * size) / elapsed, p50: 0, p99: 0)
    }

    /// Producers that each send one event and wait for its answer.
    package static func manySmall(
        _ log: any EventLog, payloads: [[UInt8]], producers: Int = 64, each: Int
    ) async throws -> Result {
        let topic = "flights.single"
        try log.declare(TopicLayout(name: topic, partitions: 1))
        let start = DispatchTime.now().uptimeNanoseconds
        let latencies = try await withThrowingTaskGroup(of: [Double].self) { group in
            for producer in 0..<producers {
                group.addTask {
                    var mine: [Double] = []
                    mine.reserveCapacity(each)
                    for number in 0..<each {
                        let payload = payloads[(producer * each + number) % payloads.count]
                        let event = NewEvent(
                            id: "s\(producer)-\(number)", source: "bench", type: "flight.departed",
                            time: Instant(milliseconds: 0), key: Array(payload[10..<16]), data: payload)
                        let began = DispatchTime.now().uptimeNanoseconds
                        _ = try await log.appendAndWait(LogAppend(principal: "bench", events: [(topic, 0, event)]))
                        mine.append(Double(DispatchTime.now().uptimeNanoseconds - began) / 1e6)
                    }
                    return mine
                }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }.sorted()
        let elapsed = Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9
        return Result(
            perSecond: Double(latencies.count) / elapsed, p50: latencies[latencies.count / 2],
            p99: latencies[latencies.count * 99 / 100])
    }

    /// Every record of a partition, checksum and LZ4 included, down to its key and value.
    package static func scan(
        _ log: any EventLog, _ partition: TopicPartition
    ) throws -> (result: Result, events: Int, bytes: Int) {
        var events = 0
        var bytes = 0
        let elapsed = try seconds {
            let range = try log.offsets(partition)
            var offset = range.lowerBound
            while offset < range.upperBound {
                let batches = try log.read(partition, from: offset, maxBytes: 4 << 20)
                guard let last = batches.last else { break }
                for batch in batches {
                    for view in batch.records {
                        bytes += Int(view.keyCount) + Int(view.valueCount)
                        events += 1
                    }
                }
                offset = last.header.lastOffset + 1
            }
        }
        return (Result(perSecond: Double(events) / elapsed, p50: 0, p99: 0), events, bytes)
    }
}
