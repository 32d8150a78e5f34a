/// How many bytes a request at the beginning of some bytes has, where its head leaves no doubt of it (RFC 9112): a line of
/// HTTP/1.1, headers without folding or odd characters, and at most one plain Content-Length. Everything else is unknown: other
/// transfer codings, upgrades, connections that are to end, expectations.
package enum RequestExtent: Equatable {
    case known(head: Int, body: Int)
    /// The head is not all there.
    case unfinished
    case unknown

    /// Digits of a length that is taken.
    private static let digits = 12

    /// - Parameter limit: bytes of a head; a longer one is unknown.
    package init(_ raw: UnsafeRawBufferPointer, limit: Int) {
        var at = 0
        var length: Int?
        var isFirst = true
        let end = min(raw.count, limit)
        while true {
            // Lines end with CR LF, and neither stands elsewhere.
            let start = at
            while at < end, raw[at] >= 0x20 || raw[at] == 0x09, raw[at] != 0x7F { at += 1 }
            guard at + 1 < end else {
                self = at < limit - 1 && (at == raw.count || raw[at] == 0x0D) ? .unfinished : .unknown
                return
            }
            guard raw[at] == 0x0D, raw[at + 1] == 0x0A else {
                self = .unknown
                return
            }
            let line = UnsafeRawBufferPointer(rebasing: raw[start..<at])
            at += 2
            if isFirst {
                isFirst = false
                guard Self.isRequestLine(line) else {
                    self = .unknown
                    return
                }
            } else if line.isEmpty {
                self = .known(head: at, body: length ?? 0)
                return
            } else if !Self.take(line, &length) {
                self = .unknown
                return
            }
        }
    }

    private static func isRequestLine(_ line: UnsafeRawBufferPointer) -> Bool {
        let version = " HTTP/1.1".utf8
        let end = line.count - version.count
        guard end > 0, line[end...].elementsEqual(version), let first = line.firstIndex(of: 0x20), first > 0,
            first + 1 < end
        else { return false }
        // A request for another protocol ends HTTP.
        return !line[..<first].elementsEqual("CONNECT".utf8) && line[(first + 1)..<end].allSatisfy { $0 > 0x20 }
            && line[..<first].allSatisfy { (0x41...0x5A).contains($0) }
    }

    /// False where the line is odd, or changes where the request or its connection ends.
    private static func take(_ line: UnsafeRawBufferPointer, _ length: inout Int?) -> Bool {
        guard let colon = line.firstIndex(of: 0x3A), colon > 0, line[..<colon].allSatisfy(isToken) else { return false }
        let name = UnsafeRawBufferPointer(rebasing: line[..<colon])
        var value = line[(colon + 1)...]
        while let first = value.first, first == 0x20 || first == 0x09 { value = value.dropFirst() }
        while let last = value.last, last == 0x20 || last == 0x09 { value = value.dropLast() }
        switch name.count {
        case 6: return !isSame(name, "expect")
        case 7: return !isSame(name, "upgrade")
        case 10:
            return !isSame(name, "connection") || isSame(UnsafeRawBufferPointer(rebasing: value), "keep-alive")
        case 14:
            guard isSame(name, "content-length") else { return true }
            guard length == nil, !value.isEmpty, value.count <= digits,
                value.allSatisfy({ (0x30...0x39).contains($0) })
            else { return false }
            length = value.reduce(0) { $0 * 10 + Int($1 - 0x30) }
            return true
        case 17: return !isSame(name, "transfer-encoding")
        default: return true
        }
    }

    /// RFC 9110 (5.6.2).
    private static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        case 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E, 0x5F, 0x60, 0x7C, 0x7E: true
        default: false
        }
    }

    /// - Parameter text: in lower case.
    private static func isSame(_ bytes: UnsafeRawBufferPointer, _ text: StaticString) -> Bool {
        guard bytes.count == text.utf8CodeUnitCount else { return false }
        for (index, byte) in bytes.enumerated() {
            let lower = (0x41...0x5A).contains(byte) ? byte | 0x20 : byte
            guard lower == text.utf8Start[index] else { return false }
        }
        return true
    }
}
