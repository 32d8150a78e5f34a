import Base
import Learning

/// The events of one key that a view's windows can still reach, and the newest one. Sums are exact, so sliding by
/// subtraction, summing afresh and summing in another order agree to the bit. What is encoded depends only on the key's
/// own events: readers move window heads, which are derived, and never what is kept.
package struct WindowState: StateValue {
    private var times: [Int64] = []
    /// Values by event, `columnCount` each; NaN is missing.
    private var values: [Double] = []
    private var columnCount: Int
    /// First entry that is still kept.
    private var start = 0
    package private(set) var lastTime: Int64 = .min
    private var lastValues: [Double] = []
    /// Texts of the newest event by column; empty when it has none.
    private var lastTexts: [String?] = []
    private var windows: [Window] = []
    /// Labels of numbers that stand for them, of columns that have such; those of kept events, and a few that went.
    private var labels: [UInt64: String] = [:]

    /// Set in the number of last values when texts follow them: a state without texts is encoded as it was before there
    /// were any, and keeps its digest.
    private static let textsFollow: UInt32 = 1 << 31
    /// The same of labels.
    private static let labelsFollow: UInt32 = 1 << 30
    /// Labels of events that went are let go of when there are so many more than events.
    private static let spareLabels = 64

    /// Entries that were dropped from the arrays for good: an entry's own number is this and its index.
    private var dropped = 0

    /// So many events are gone through at every reading; of more, every window is kept up from event to event. Most keys of
    /// many have few, and columns of their own would be most of what they take.
    private static let fewEvents = 16

    private struct Window {
        var head: Int
        var columns: [WindowColumn]
    }

    /// The state of a key that has seen nothing, for a plan with so many value columns.
    package init(columnCount: Int) { self.columnCount = columnCount }

    /// - Parameter texts: by column; NaN stands in the row beside a text. Empty when there are none.
    package mutating func add(time: Int64, row: [Double], texts: [String?] = [], plan: WindowPlan) {
        var texts = texts
        if !plan.labelled.isEmpty, !texts.isEmpty { takeLabels(row, &texts, plan) }
        if !plan.spans.isEmpty, time < lastTime {
            insert(time, row, plan)
        } else if !plan.spans.isEmpty {
            if times.count - start >= Self.fewEvents { prepare(plan) }
            let limit = time - plan.longestSpan
            while start < times.count, times[start] <= limit { start += 1 }
            times.append(time)
            values.append(contentsOf: row)
            for index in windows.indices {
                for column in 0..<columnCount where !row[column].isNaN {
                    windows[index].columns[column].add(row[column], dropped + times.count - 1)
                }
                advance(index, to: time - plan.spans[index])
            }
            compact()
        }
        if time >= lastTime {
            lastTime = time
            // Into what is there, and never the caller's buffer, which it goes on using.
            if lastValues.count == row.count {
                for column in row.indices { lastValues[column] = row[column] }
            } else {
                lastValues = row.map { $0 }
            }
            lastTexts = texts.isEmpty ? [] : texts
        }
        // Behind the newest event, whose label is wanted as well.
        if labels.count > Self.spareLabels + 2 * (times.count - start) { labels = keptLabels() }
    }

    /// An event that came late takes its place behind those of its time, if any window still reaches it.
    private mutating func insert(_ time: Int64, _ row: [Double], _ plan: WindowPlan) {
        guard time > lastTime - plan.longestSpan else { return }
        var at = times.count
        while at > start, times[at - 1] > time { at -= 1 }
        times.insert(time, at: at)
        values.insert(contentsOf: row, at: at * columnCount)
        // Kept up from the oldest to the newest alone, so they are worked out afresh when they are wanted.
        windows = []
    }

    private mutating func takeLabels(_ row: [Double], _ texts: inout [String?], _ plan: WindowPlan) {
        for column in plan.labelled {
            if let text = texts[column] { labels[row[column].bitPattern] = text }
            texts[column] = nil
        }
        if !texts.contains(where: { $0 != nil }) { texts = [] }
    }

    /// Labels of events that are kept.
    private func keptLabels() -> [UInt64: String] {
        guard !labels.isEmpty else { return [:] }
        var kept: [UInt64: String] = [:]
        for value in values[(start * columnCount)...] where kept[value.bitPattern] == nil {
            kept[value.bitPattern] = labels[value.bitPattern]
        }
        return kept
    }

    /// The label that a `top` reading gives as of a moment, of those equally often the first by its bytes; nil where there are not
    /// so many.
    package mutating func label(_ reading: Int, _ plan: WindowPlan, at now: Int64) -> String? {
        let reading = plan.readings[reading]
        guard reading.measure == .top else { return nil }
        var counts: [UInt64: Int] = [:]
        if windows.isEmpty {
            let limit = now - plan.spans[reading.window]
            for entry in start..<times.count where times[entry] > limit {
                let value = values[entry * columnCount + reading.column]
                if !value.isNaN { counts[value.bitPattern, default: 0] += 1 }
            }
        } else {
            if windows[reading.window].head < start {
                advance(reading.window, to: times.isEmpty ? .max : times[start] - 1)
            }
            advance(reading.window, to: now - plan.spans[reading.window])
            counts = windows[reading.window].columns[reading.column].counts
        }
        guard counts.count >= reading.rank else { return nil }
        let ranked = counts.map { ($0.value, labels[$0.key] ?? "") }.sorted { left, right in
            left.0 == right.0 ? left.1.utf8.lexicographicallyPrecedes(right.1.utf8) : left.0 > right.0
        }
        return ranked[reading.rank - 1].1
    }

    /// The text that stands in place of the newest event's number.
    package func text(_ column: Int) -> String? { column < lastTexts.count ? lastTexts[column] : nil }

    private mutating func prepare(_ plan: WindowPlan) {
        guard windows.isEmpty else { return }
        windows = plan.measures.map { measures in
            var window = Window(head: start, columns: measures.map { WindowColumn($0) })
            for entry in start..<times.count {
                for column in 0..<columnCount where !values[entry * columnCount + column].isNaN {
                    window.columns[column].add(values[entry * columnCount + column], dropped + entry)
                }
            }
            return window
        }
    }

    /// Drops from a window what lies at or before the limit.
    private mutating func advance(_ index: Int, to limit: Int64) {
        while windows[index].head < times.count, times[windows[index].head] <= limit {
            let entry = windows[index].head
            for column in 0..<columnCount where !values[entry * columnCount + column].isNaN {
                windows[index].columns[column].remove(values[entry * columnCount + column], dropped + entry)
            }
            windows[index].head += 1
        }
    }

    private mutating func compact() {
        guard start > 64, start * 2 > times.count else { return }
        times.removeFirst(start)
        values.removeFirst(start * columnCount)
        for index in windows.indices { windows[index].head -= start }
        dropped += start
        start = 0
    }

    /// What the plan reads as of `now`: every event up to and including it, none later. NaN is missing.
    package mutating func read(_ plan: WindowPlan, at now: Int64) -> [Double] {
        var values: [Double] = []
        values.reserveCapacity(plan.readings.count)
        read(plan, at: now, into: &values)
        return values
    }

    /// The same, behind what is in the list already.
    package mutating func read(_ plan: WindowPlan, at now: Int64, into list: inout [Double]) {
        if windows.isEmpty, times.count - start <= Self.fewEvents {
            for reading in plan.readings { list.append(few(reading, plan, now)) }
            return
        }
        prepare(plan)
        for index in windows.indices {
            // A head never lies before what is kept.
            if windows[index].head < start { advance(index, to: times.isEmpty ? .max : times[start] - 1) }
            advance(index, to: now - plan.spans[index])
        }
        for reading in plan.readings { list.append(value(reading, now)) }
    }

    private mutating func value(_ reading: WindowReading, _ now: Int64) -> Double {
        switch reading.measure {
        case .last: return lastTime == .min ? .nan : lastValues[reading.column]
        case .secondsSince: return lastTime == .min ? .nan : Double(now - lastTime) / 1000
        case .hoursSince: return lastTime == .min ? .nan : Double(now - lastTime) / 3_600_000
        case .count: return Double(times.count - windows[reading.window].head)
        default:
            return edge(reading, windows[reading.window].head..<times.count)
                ?? windows[reading.window].columns[reading.column].value(reading)
        }
    }

    /// What the events at the edges of a window say; nil for a measure of all of them.
    private func edge(_ reading: WindowReading, _ inside: Range<Int>) -> Double? {
        switch reading.measure {
        case .first: inside.isEmpty ? .nan : values[inside.lowerBound * columnCount + reading.column]
        case .oldest: known(inside, reading.column)
        case .newest: known(inside.reversed(), reading.column)
        case .nthNewest: nth(reading.rank, inside, reading.column)
        case .top: .nan
        default: nil
        }
    }

    /// The same from the events themselves: sums are exact, so it makes no difference to any bit.
    private func few(_ reading: WindowReading, _ plan: WindowPlan, _ now: Int64) -> Double {
        switch reading.measure {
        case .last: return lastTime == .min ? .nan : lastValues[reading.column]
        case .secondsSince: return lastTime == .min ? .nan : Double(now - lastTime) / 1000
        case .hoursSince: return lastTime == .min ? .nan : Double(now - lastTime) / 3_600_000
        default: break
        }
        var head = start
        while head < times.count, times[head] <= now - plan.spans[reading.window] { head += 1 }
        if reading.measure == .count { return Double(times.count - head) }
        if let found = edge(reading, head..<times.count) { return found }
        let inside = (head..<times.count).lazy.map { values[$0 * columnCount + reading.column] }.filter { !$0.isNaN }
        switch reading.measure {
        case .min: return inside.reduce(Double.nan) { $1 <= $0 || $0.isNaN ? $1 : $0 }
        case .max: return inside.reduce(Double.nan) { $1 >= $0 || $0.isNaN ? $1 : $0 }
        case .sum, .mean:
            var (sum, count) = (ExactSum(), 0)
            for value in inside {
                sum.add(value)
                count += 1
            }
            return count == 0 ? .nan : reading.measure == .sum ? sum.value : sum.value / Double(count)
        default:
            var column = WindowColumn(WindowColumn.Measures(reading.measure))
            for (entry, value) in inside.enumerated() { column.add(value, entry) }
            return column.value(reading)
        }
    }

    private func nth(_ rank: Int, _ inside: Range<Int>, _ column: Int) -> Double {
        var left = rank
        for entry in inside.reversed() where !values[entry * columnCount + column].isNaN {
            left -= 1
            if left == 0 { return values[entry * columnCount + column] }
        }
        return .nan
    }

    /// The first value that is not missing.
    private func known(_ entries: some Sequence<Int>, _ column: Int) -> Double {
        for entry in entries where !values[entry * columnCount + column].isNaN {
            return values[entry * columnCount + column]
        }
        return .nan
    }

    package func encode(into writer: inout ByteWriter) {
        writer.append(little: UInt32(columnCount))
        writer.append(little: UInt32(times.count - start))
        for entry in start..<times.count {
            writer.append(little: times[entry])
            for column in 0..<columnCount { writer.append(values[entry * columnCount + column]) }
        }
        writer.append(little: lastTime)
        let labels = keptLabels()
        writer.append(
            little: UInt32(lastValues.count) | (lastTexts.isEmpty ? 0 : WindowState.textsFollow)
                | (labels.isEmpty ? 0 : WindowState.labelsFollow))
        for value in lastValues { writer.append(value) }
        for text in lastTexts {
            writer.append(UInt8(text == nil ? 0 : 1))
            if let text { writer.append(sized: text) }
        }
        guard !labels.isEmpty else { return }
        writer.append(little: UInt32(labels.count))
        for (bits, label) in labels.sorted(by: { $0.key < $1.key }) {
            writer.append(little: bits)
            writer.append(sized: label)
        }
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        columnCount = Int(try reader.little(UInt32.self))
        let count = Int(try reader.little(UInt32.self))
        try reader.require(count * 8 * (columnCount + 1))
        for _ in 0..<count {
            times.append(try reader.little())
            for _ in 0..<columnCount { values.append(try reader.double()) }
        }
        lastTime = try reader.little()
        let lasts: UInt32 = try reader.little()
        for _ in 0..<(lasts & ~(WindowState.textsFollow | WindowState.labelsFollow)) {
            lastValues.append(try reader.double())
        }
        if lasts & WindowState.textsFollow != 0 {
            for _ in lastValues { lastTexts.append(try reader.byte() == 1 ? try reader.sizedText() : nil) }
        }
        guard lasts & WindowState.labelsFollow != 0 else { return }
        for _ in 0..<(try reader.little(UInt32.self)) {
            let bits: UInt64 = try reader.little()
            labels[bits] = try reader.sizedText()
        }
    }
}
