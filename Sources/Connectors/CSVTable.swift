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
        var ranges: [Range<Int>] = []
        var start = 0
        var quoted = false
        for index in bytes.indices {
            let byte = bytes[index]
            if byte == 0x22 { quoted.toggle() }
            guard byte == 0x0A, !quoted else { continue }
            ranges.append(start..<index)
            start = index + 1
        }
        if start < bytes.count { ranges.append(start..<bytes.count) }
        guard let first = ranges.first else { throw ConnectorsError("empty-file", "the file '\(name)' is empty") }
        header = CSVTable.fields(bytes, first).map { CSVTable.text(bytes, $0) }
        var rows: [Range<Int>] = []
        var damaged: [(line: Int, text: String)] = []
        for (number, range) in ranges.enumerated().dropFirst() {
            if range.isEmpty || (range.count == 1 && bytes[range.lowerBound] == 0x0D) { continue }
            if CSVTable.fields(bytes, range).count == header.count {
                rows.append(range)
            } else {
                damaged.append((number + 1, String(decoding: bytes[range].prefix(4096), as: UTF8.self)))
            }
        }
        self.rows = rows
        self.damaged = damaged
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
