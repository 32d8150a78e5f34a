import Base
import Foundation
import HTTP
import Testing

/// Where requests end, as far as their heads leave no doubt.
@Suite struct RequestExtentTests {
    private static func extent(_ bytes: [UInt8], limit: Int = 4096) -> RequestExtent {
        bytes.withUnsafeBytes { RequestExtent($0, limit: limit) }
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n\r\n", RequestExtent.known(head: 18, body: 0)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nmore", .known(head: 27, body: 0)),
        ("POST /a?b=c HTTP/1.1\r\nCONTENT-length: \t12 \r\nconnection: Keep-Alive\r\n\r\n", .known(head: 70, body: 12)),
        ("POST / HTTP/1.1\r\nX-Name: caf\u{e9} \"a\"\r\nContent-Length: 0\r\n\r\n", .known(head: 57, body: 0)),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nContent-Length: 9999999999999\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\ntransfer-encoding: x\r\n\r\n", .unknown),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", .unknown),
        ("GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", .unknown),
        ("GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", .unknown),
        ("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", .unknown),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", .unknown), ("GET / HTTP/1.1\nA: b\n\n", .unknown),
        ("GET / HTTP/1.1\r\nA: b\r\rContent-Length: 1\r\n\r\n", .unknown),
        ("GET / HTTP/1.1\r\nA: b\u{0}\r\n\r\n", .unknown), ("GET / HTTP/1.1\r\nno colon\r\n\r\n", .unknown),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", .unknown), ("GET / HTTP/1.0\r\n\r\n", .unknown),
        ("GET / HTTP/2.0\r\n\r\n", .unknown), ("GET  HTTP/1.1\r\n\r\n", .unknown), ("get / HTTP/1.1\r\n\r\n", .unknown),
        ("GETX HTTP/1.1\r\n\r\n", .unknown), (" HTTP/1.1\r\n\r\n", .unknown),
        ("GET /a b HTTP/1.1\r\n\r\n", .unknown), ("CONNECT a:1 HTTP/1.1\r\n\r\n", .unknown),
        ("\r\nGET / HTTP/1.1\r\n\r\n", .unknown), ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", .unknown),
    ]) func isKnownOrNot(text: String, expected: RequestExtent) {
        #expect(Self.extent([UInt8](text.utf8)) == expected, "\(text.debugDescription)")
    }

    /// Every beginning of a request is unfinished, whatever stands behind a request changes nothing, and a head beyond the limit is
    /// left to others.
    @Test func beginningsAreUnfinished() {
        let request = [UInt8]("POST /v1/features HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nA: b\r\n\r\n".utf8)
        for count in 0..<request.count { #expect(Self.extent(Array(request[..<count])) == .unfinished, "\(count)") }
        #expect(Self.extent(request + [0, 10, 13]) == .known(head: request.count, body: 5))
        for limit in 1..<request.count { #expect(Self.extent(request, limit: limit) == .unknown, "\(limit)") }
        #expect(Self.extent(request, limit: request.count) == .known(head: request.count, body: 5))
    }

    /// What is known of any bytes is what splitting them into lines says.
    @Test func isWhatLinesSay() {
        var random = SeededRandom(seed: 5)
        let pieces = [
            "GET / HTTP/1.1", "POST /x HTTP/1.1", "\r\n", "\r\n", "\r\n", "\n", "\r", "Content-Length: 7",
            "content-length:3",
            "Host: a", "Connection: keep-alive", "Transfer-Encoding: chunked", " folded", "A:", "B: \u{7f}", "x", ":",
            "\t",
        ]
        var known = 0
        for _ in 0..<200_000 {
            var text = Bool.random(using: &random) ? "GET / HTTP/1.1\r\n" : ""
            for _ in 0..<Int.random(in: 0...8, using: &random) {
                text += pieces[Int.random(in: pieces.indices, using: &random)]
                if Int.random(in: 0..<3, using: &random) > 0 { text += "\r\n" }
            }
            guard case .known(let head, let body) = Self.extent([UInt8](text.utf8)) else { continue }
            known += 1
            let lines = text.utf8.prefix(head).split(separator: 10, omittingEmptySubsequences: false).map {
                String(decoding: $0, as: UTF8.self)
            }
            let isHead =
                lines.count >= 3
                && lines.dropLast().allSatisfy { $0.utf8.last == 13 && $0.utf8.count { $0 == 13 } == 1 }
                && lines[lines.count - 2] == "\r" && lines.last == "" && lines.filter { $0 == "\r" }.count == 1
            let headers = lines.dropFirst().dropLast(2).map { $0.dropLast().lowercased() }
            let lengths = headers.filter { $0.hasPrefix("content-length:") }.map {
                Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces))
            }
            let isPlain = headers.allSatisfy {
                !$0.hasPrefix("transfer-encoding") && !$0.hasPrefix(" ") && $0.contains(":") && !$0.hasPrefix(":")
            }
            #expect(isHead && isPlain && lengths.count <= 1 && (lengths.first ?? 0) == body, "\(text.debugDescription)")
        }
        #expect(known > 5000, "\(known)")
    }
}
