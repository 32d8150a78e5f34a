import Base
import EventLog
import Foundation
import Models
import RecordFormat
import Streams

/// Holds what registered models were made from: retention and compaction leave every input event of a version alone until
/// somebody releases its pin, so that it can be audited. Only a log that can pin does so.
package struct ModelPins {
    private let log: any EventLog
    private var next: Int64 = 0
    private static let topic = TopicPartition(ModelTopics.registered, 0)

    package init(log: any EventLog) { self.log = log }

    static func name(_ model: String, _ version: Int64) -> String { "model:\(model)@\(version)" }

    /// Pins what was registered since the last call. A pin that was released is not made again.
    package mutating func runSlice() throws {
        guard log.capabilities.contains(.pins), log.partitions(of: Self.topic.topic) > 0 else { return }
        var registered: [(model: String, version: Int64, request: String)] = []
        try log.forEachEvent(Self.topic, from: next, passesDoubt: true) { event in
            next = event.offset + 1
            guard let data = event.data.flatMap({ try? JSON(parsing: $0) }), let model = data["model"]?.string,
                let version = data["version"]?.int, let request = data["request"]?.string
            else { return true }
            registered.append((model, version, request))
            return true
        }
        guard !registered.isEmpty else { return }
        let released = try ModelPins.released(log)
        let held = Set(log.pins.map(\.name))
        let wanted = registered.filter {
            let name = ModelPins.name($0.model, $0.version)
            return !held.contains(name) && !released.contains(name)
        }
        guard !wanted.isEmpty else { return }
        let inputs = try inputs(of: Set(wanted.map(\.request)))
        for (model, version, request) in wanted {
            try pin(ModelPins.name(model, version), through: inputs[request] ?? [:])
        }
    }

    /// How often a pin is tried while retention takes away what it was to hold.
    private static let attempts = 5

    private func pin(_ name: String, through ends: [TopicPartition: Int64]) throws {
        for attempt in 1...ModelPins.attempts {
            var ranges: [TopicPartition: Range<Int64>] = [:]
            for (partition, end) in ends where partition.partition < log.partitions(of: partition.topic) {
                let readable = try log.offsets(partition)
                let range = readable.lowerBound..<max(readable.lowerBound, min(end, readable.upperBound))
                if !range.isEmpty { ranges[partition] = range }
            }
            guard !ranges.isEmpty else { return }
            var raced: EventLogError?
            do { try log.pin(Pin(name: name, ranges: ranges)) } catch { raced = error }
            guard let raced else { return }
            // Something was trimmed between looking and pinning; what is left is held.
            guard raced.code == "bad-offset", attempt < ModelPins.attempts else { throw raced }
        }
    }

    /// How far the inputs had been folded when each training was asked for: a rebuild reads no further.
    private func inputs(of requests: Set<String>) throws -> [String: [TopicPartition: Int64]] {
        var found: [String: [TopicPartition: Int64]] = [:]
        try log.forEachEvent(TopicPartition(ModelTopics.requested, 0)) { event in
            guard requests.contains(event.id), let data = event.data.flatMap({ try? JSON(parsing: $0) }) else {
                return true
            }
            var ends: [TopicPartition: Int64] = [:]
            for (name, end) in data["asOf"]?.object ?? [:] {
                guard let partition = TopicPartition(parsing: name), let end = end.int else { continue }
                ends[partition] = end
            }
            found[event.id] = ends
            return found.count < requests.count
        }
        return found
    }

    /// Names that somebody released: it is logged, so that a restart does not pin them anew.
    private static func released(_ log: any EventLog) throws -> Set<String> {
        var names: Set<String> = []
        guard log.partitions(of: releases) > 0 else { return names }
        try log.forEachEvent(TopicPartition(releases, 0), passesDoubt: true) { event in
            if let name = event.data.flatMap({ try? JSON(parsing: $0) })?["pin"]?.string { names.insert(name) }
            return true
        }
        return names
    }

    static let releases = "headrace.releases"

    /// Lets retention and compaction have again what a pin holds. It is logged first.
    package static func release(_ name: String, _ log: any EventLog) throws {
        guard log.pins.contains(where: { $0.name == name }) else {
            let known = log.pins.map(\.name).joined(separator: ", ")
            throw NodeError("unknown-pin", "no pin is called '\(name)'; there are: \(known.isEmpty ? "none" : known)")
        }
        let data = JSON.object(["pin": .string(name)]).canonical
        let now = Instant.wallClock()
        let event = NewEvent(
            id: "released:\(name):\(now.milliseconds)", source: "headrace:/node", type: "pin.released", time: now,
            data: data)
        _ = try log.append(LogAppend(principal: "node", events: [(releases, 0, event)]))
        try log.unpin(name)
    }
}

extension Node {
    /// A version that is no longer held may not be auditable afterwards.
    package func unpin(_ name: String) throws -> JSON {
        try ModelPins.release(name, try files())
        return .object(["released": .string(name)])
    }
}
