import Base
import Foundation

/// A CSV file (RFC 4180) in memory with the place of every row; rows whose field count is off are counted apart.
package final class CSVTable: Sendable {
    let bytes: [UInt8]
    let header: [String]
    let rows: [Range<Int>]
    /// Line numbers and texts of rows that are cut off or have too many fields.
    package let damaged: [(line: Int, text: String)]

    package convenience init(path: String) throws(ConnectorsError) {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw ConnectorsError("no-file", "the file '\(path)' cannot be read; fetch the data first", fault: .world)
        }
        try self.init(bytes: [UInt8](data), name: path)
    }

    package init(bytes: [UInt8], name: String) throws(ConnectorsError) {
        self.bytes = bytes
        guard let first = CSVTable.row(bytes, from: 0) else {
            throw ConnectorsError("empty-file", "the file '\(name)' is empty")
        }
        header = CSVTable.fields(bytes, first).map { CSVTable.text(bytes, $0) }
        var rows: [Range<Int>] = []
        var damaged: [(line: Int, text: String)] = []
        var start = first.upperBound + 1
        var line = 2
        while let row = CSVTable.row(bytes, from: start) {
            var end = row.upperBound
            let isBlank = row.isEmpty || (row.count == 1 && bytes[row.lowerBound] == 0x0D)
            if !isBlank, CSVTable.fields(bytes, row).count == header.count {
                rows.append(row)
            } else if !isBlank {
                // A quote without its partner must not swallow the rows behind it: only its own line is damaged.
                end = bytes[row].firstIndex(of: 0x0A) ?? end
                damaged.append((line, String(decoding: bytes[row.lowerBound..<end].prefix(4096), as: UTF8.self)))
            }
            line += 1 + bytes[row.lowerBound..<end].reduce(0) { $0 + ($1 == 0x0A ? 1 : 0) }
            start = end + 1
        }
        self.rows = rows
        self.damaged = damaged
    }

    /// The row that begins there, to the next line end outside quotes; nil at the end of the file.
    private static func row(_ bytes: [UInt8], from start: Int) -> Range<Int>? {
        guard start < bytes.count else { return nil }
        return bytes.withUnsafeBufferPointer { raw in
            var quoted = false
            var index = start
            while index < raw.count {
                if raw[index] == 0x22 { quoted.toggle() }
                if raw[index] == 0x0A, !quoted { break }
                index += 1
            }
            return start..<index
        }
    }

    static func fields(_ bytes: [UInt8], _ row: Range<Int>) -> [Range<Int>] {
        var result: [Range<Int>] = []
        var start = row.lowerBound
        var end = row.upperBound
        if end > start, bytes[end - 1] == 0x0D { end -= 1 }
        var quoted = false
        bytes.withUnsafeBufferPointer { raw in
            for index in start..<end {
                if raw[index] == 0x22 { quoted.toggle() }
                guard raw[index] == 0x2C, !quoted else { continue }
                result.append(start..<index)
                start = index + 1
            }
        }
        result.append(start..<end)
        return result
    }

    static func text(_ bytes: [UInt8], _ field: Range<Int>) -> String {
        guard field.count >= 2, bytes[field.lowerBound] == 0x22 else {
            return String(decoding: bytes[field], as: UTF8.self)
        }
        let inner = String(decoding: bytes[field.lowerBound + 1..<field.upperBound - 1], as: UTF8.self)
        return inner.replacingOccurrences(of: "\"\"", with: "\"")
    }
}
