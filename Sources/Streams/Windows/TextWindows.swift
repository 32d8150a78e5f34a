import Base

/// How often each text stands in sliding windows over one key's events; exact. Beside `WindowState`, which keeps numbers, for the
/// few plans that look at texts.
struct TextWindows: StateValue {
    private var times: [Int64] = []
    private var rows: [[String?]] = []
    /// First entry that is still kept.
    private var start = 0
    /// By window; empty until they are needed, as they are not encoded.
    private var windows: [Window] = []

    private struct Window {
        var head: Int
        /// By column.
        var counts: [[StateKey: Int64]]
    }

    init() {}

    /// Takes a row in, and out of each window (time − span, time] what has left it. The longest span comes first.
    mutating func slide(to time: Int64, _ row: [String?], spans: [Int64]) {
        prepare(spans, columns: row.count)
        times.append(time)
        rows.append(row)
        for index in windows.indices {
            change(index, times.count - 1, by: 1)
            while times[windows[index].head] <= time - spans[index] {
                change(index, windows[index].head, by: -1)
                windows[index].head += 1
            }
        }
        start = windows.map(\.head).min() ?? 0
        guard start > 32, start * 2 > times.count else { return }
        times.removeFirst(start)
        rows.removeFirst(start)
        for index in windows.indices { windows[index].head -= start }
        start = 0
    }

    private mutating func prepare(_ spans: [Int64], columns: Int) {
        guard windows.isEmpty else { return }
        windows = spans.map { _ in Window(head: start, counts: Array(repeating: [:], count: columns)) }
        for index in windows.indices {
            for entry in start..<times.count { change(index, entry, by: 1) }
        }
    }

    private mutating func change(_ window: Int, _ entry: Int, by amount: Int64) {
        for (column, text) in rows[entry].enumerated() {
            guard let text else { continue }
            let key = StateKey(text)
            let left = windows[window].counts[column][key, default: 0] + amount
            windows[window].counts[column][key] = left > 0 ? left : nil
        }
    }

    func counts(window: Int, column: Int) -> [StateKey: Int64] {
        windows.isEmpty ? [:] : windows[window].counts[column]
    }

    func encode(into writer: inout ByteWriter) {
        writer.append(little: UInt32(times.count - start))
        for entry in start..<times.count {
            writer.append(little: times[entry])
            writer.append(little: UInt32(rows[entry].count))
            for text in rows[entry] {
                writer.append(UInt8(text == nil ? 0 : 1))
                if let text { writer.append(sized: text) }
            }
        }
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        for _ in 0..<(try reader.little(UInt32.self)) {
            times.append(try reader.little())
            var row: [String?] = []
            for _ in 0..<(try reader.little(UInt32.self)) {
                row.append(try reader.byte() == 1 ? try reader.sizedText() : nil)
            }
            rows.append(row)
        }
    }
}
