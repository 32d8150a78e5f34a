import Base
import Foundation
import Learning
import Streams

/// An event of the random topologies, as it stands in its log.
struct Sample {
    let topic: Int
    let partition: Int
    let time: Int64
    let key: String
    let x: Double?
    let text: String?

    var json: String {
        let x = x.map { "\($0)" } ?? "null"
        let text = text.map { "\"\($0)\"" } ?? "null"
        return "{\"k\":\"\(key)\",\"x\":\(x),\"s\":\(text)}"
    }
}

/// The same as a typed value.
struct Reading: StreamValue, Equatable {
    var key: String
    var x: Double?
    var text: String?

    init(key: String, x: Double?, text: String?) {
        self.key = key
        self.x = x
        self.text = text
    }

    init(_ fields: FieldReader) throws {
        key = try fields.text("k")
        x = try fields.optionalNumber("x")
        text = try fields.optionalText("s")
    }

    func write(to writer: inout JSONWriter) {
        writer.beginObject()
        writer.key("k")
        writer.value(key)
        writer.key("x")
        if let x { writer.value(x) } else { writer.null() }
        writer.key("s")
        if let text { writer.value(text) } else { writer.null() }
        writer.endObject()
    }

    /// As it is written.
    var line: String {
        var writer = JSONWriter()
        write(to: &writer)
        return String(decoding: writer.bytes, as: UTF8.self)
    }
}

/// What typed operators mean, written down naively over whole lists: nothing here is incremental.
enum TypedOracle {
    struct Entry {
        let time: Int64
        var key: String
        var value: Reading
        /// Which of the two topics it came from.
        let side: Int
        /// Its place in the fold.
        let order: Int
    }

    /// A line of output: key, time, data.
    static func line(_ key: String, _ time: Int64, _ data: String) -> String { "\(key)|\(time)|\(data)" }

    static let measures: [Measure<Reading>] = [
        .count(), .of(.sum, "sum") { $0.x }, .of(.mean, "mean") { $0.x }, .of(.variance, "variance") { $0.x },
        .of(.min, "min") { $0.x }, .of(.max, "max") { $0.x }, .of(.first, "first") { $0.x },
        .of(.last, "last") { $0.x }, .distinct("distinct") { $0.text }, .of(.quantile(0.9), "q90") { $0.x },
        .top(2, "top") { $0.text },
    ]

    private static func number(_ value: Double?) -> String {
        guard let value else { return "null" }
        var writer = JSONWriter()
        writer.value(value)
        return String(decoding: writer.bytes, as: UTF8.self)
    }

    /// A window's result over the values in it, in their order.
    static func result(_ values: [Reading], from: Int64, to: Int64) -> String {
        let xs = values.compactMap(\.x)
        let texts = values.compactMap(\.text)
        // Eighths: sums are exact in any order.
        let sum = xs.reduce(0, +)
        var moments = Moments()
        var histogram = LogHistogram()
        for x in xs {
            moments.add(x)
            histogram.add(x)
        }
        var counts: [String: Int] = [:]
        for text in texts { counts[text, default: 0] += 1 }
        let top = counts.sorted { $0.value == $1.value ? $0.key < $1.key : $0.value > $1.value }.prefix(2)
            .map { "[\"\($0.key)\",\($0.value)]" }.joined(separator: ",")
        let none = xs.isEmpty
        let parts: [(String, String)] = [
            ("count", "\(values.count)"), ("sum", number(none ? nil : sum)),
            ("mean", number(none ? nil : sum / Double(xs.count))), ("variance", number(moments.variance(sample: true))),
            ("min", number(xs.min())), ("max", number(xs.max())), ("first", number(xs.first)),
            ("last", number(xs.last)),
            ("distinct", number(Double(counts.count))), ("q90", number(histogram.quantile(0.9))), ("top", "[\(top)]"),
        ]
        let span = "\"from\":\"\(Instant(milliseconds: from))\",\"to\":\"\(Instant(milliseconds: to))\""
        return "{\(span),\(parts.map { "\"\($0)\":\($1)" }.joined(separator: ","))}"
    }

    /// - Parameter end: everything up to there is complete.
    static func windows(_ entries: [Entry], _ shape: WindowShape, _ emission: Emission, end: Int64) -> [String] {
        var lines: [String] = []
        for (key, list) in Dictionary(grouping: entries, by: \.key) {
            switch shape {
            case .tumbling(let size): lines += panes(key, list, size, size, emission, end)
            case .hopping(let size, let step): lines += panes(key, list, size, step, emission, end)
            case .session(let gap): lines += sessions(key, list, gap, emission, end)
            case .sliding(let size):
                for (index, entry) in list.enumerated() {
                    let inside = list[...index].filter { $0.time > entry.time - size }.map(\.value)
                    lines.append(line(key, entry.time, result(inside, from: entry.time - size, to: entry.time)))
                }
            }
        }
        return lines
    }

    private static func panes(
        _ key: String, _ list: [Entry], _ size: Int64, _ step: Int64, _ emission: Emission, _ end: Int64
    ) -> [String] {
        var lines: [String] = []
        var ends: Set<Int64> = []
        for entry in list { ends.formUnion((entry.time..<entry.time + size).filter { $0 % step == 0 }) }
        for to in ends {
            let inside = list.filter { $0.time > to - size && $0.time <= to }
            if to <= end { lines.append(line(key, to, result(inside.map(\.value), from: to - size, to: to))) }
            guard case .onEveryEvent = emission else { continue }
            for index in inside.indices {
                lines.append(
                    line(key, inside[index].time, result(inside[...index].map(\.value), from: to - size, to: to)))
            }
        }
        return lines
    }

    private static func sessions(
        _ key: String, _ list: [Entry], _ gap: Int64, _ emission: Emission, _ end: Int64
    ) -> [String] {
        var lines: [String] = []
        var groups: [[Entry]] = []
        for entry in list {
            if let last = groups.last?.last, entry.time - last.time <= gap {
                groups[groups.count - 1].append(entry)
            } else {
                groups.append([entry])
            }
        }
        for group in groups {
            let (from, to) = (group[0].time, group[group.count - 1].time)
            if to + gap <= end { lines.append(line(key, to + gap, result(group.map(\.value), from: from, to: to))) }
            guard case .onEveryEvent = emission else { continue }
            for index in group.indices {
                let part = group[...index]
                lines.append(line(key, group[index].time, result(part.map(\.value), from: from, to: group[index].time)))
            }
        }
        return lines
    }

    private static func joined(_ left: Reading, _ right: Reading?) -> String {
        "{\"left\":\(left.line),\"right\":\(right?.line ?? "null")}"
    }

    static func streamJoin(_ entries: [Entry], before: Int64, after: Int64, keeps: Bool, end: Int64) -> [String] {
        var lines: [String] = []
        for left in entries where left.side == 0 {
            let partners = entries.filter {
                $0.side == 1 && $0.key == left.key && $0.time >= left.time - before && $0.time <= left.time + after
            }
            for right in partners {
                lines.append(line(left.key, max(left.time, right.time), joined(left.value, right.value)))
            }
            guard partners.isEmpty, keeps else { continue }
            let time = max(left.time, left.time + after)
            if time <= end { lines.append(line(left.key, time, joined(left.value, nil))) }
        }
        return lines
    }

    static func tableJoin(_ entries: [Entry], within: Int64?, keeps: Bool) -> [String] {
        entries.filter { $0.side == 0 }.compactMap { left in
            let newest = entries.last { $0.side == 1 && $0.key == left.key && $0.order < left.order }
            let found = newest.flatMap { entry in within.map { left.time - entry.time <= $0 } ?? true ? entry : nil }
            guard found != nil || keeps else { return nil }
            return line(left.key, left.time, joined(left.value, found?.value))
        }
    }

    static func tables(_ entries: [Entry], keeps: Bool) -> [String] {
        entries.compactMap { entry in
            func newest(_ side: Int) -> Reading? {
                entries.last { $0.side == side && $0.key == entry.key && $0.order <= entry.order }?.value
            }
            guard let left = newest(0) else { return nil }
            let right = newest(1)
            guard right != nil || keeps else { return nil }
            return line(entry.key, entry.time, joined(left, right))
        }
    }

    /// Running sums of a key.
    static func reductions(_ entries: [Entry]) -> [String] {
        entries.map { entry in
            let sofar = entries.filter { $0.key == entry.key && $0.order <= entry.order }
            let sum = sofar.map { $0.value.x ?? 0 }.reduce(0, +)
            let first = sofar[0].value
            // The first value stands as it came.
            let value = sofar.count == 1 ? first : Reading(key: entry.key, x: sum, text: entry.value.text)
            return line(entry.key, entry.time, value.line)
        }
    }

    /// The last running sum of each span of so many milliseconds that a key changed in.
    static func suppressed(_ entries: [Entry], every: Int64, end: Int64) -> [String] {
        zip(entries, reductions(entries)).compactMap { entry, line -> String? in
            let to = (entry.time + every - 1) / every * every
            let isLast = !entries.contains { $0.key == entry.key && $0.order > entry.order && $0.time <= to }
            guard isLast, to <= end else { return nil }
            let data = line.split(separator: "|", maxSplits: 2)[2]
            return Self.line(entry.key, to, String(data))
        }
    }

    /// A key is given when nothing came for `delay`; how many came since it was last given.
    static func silences(_ entries: [Entry], delay: Int64, end: Int64) -> [String] {
        var lines: [String] = []
        for (key, list) in Dictionary(grouping: entries, by: \.key) {
            var count = 0
            for (index, entry) in list.enumerated() {
                count += 1
                let next = index + 1 < list.count ? list[index + 1].time : Int64.max
                guard next > entry.time + delay, entry.time + delay <= end else { continue }
                lines.append(line(key, entry.time + delay, "\(count)"))
                count = 0
            }
        }
        return lines
    }
}
