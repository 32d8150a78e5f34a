import Base
import Foundation
import HTTP
import Testing

extension HeavyTests {
    /// Requests that are answered where they are read, and those that go on to the routes, over one connection.
    @Suite struct QuickAnswersTests {
        private struct Exchange {
            let bytes: [UInt8]
            let answer: String
            /// Who must answer when nothing else is under way.
            let isQuick: Bool
            /// Where it ends is known to the routes alone, and everything behind it is theirs.
            let isChunked: Bool
        }

        /// A connection on which raw bytes are written and answers are read.
        private struct Connection {
            private let descriptor: Int32
            private var read: [UInt8] = []

            init(port: Int) throws {
                descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
                var address = sockaddr_in()
                address.sin_family = sa_family_t(AF_INET)
                address.sin_port = UInt16(port).bigEndian
                address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
                let isConnected = withUnsafePointer(to: &address) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
                    }
                }
                var isPrompt: Int32 = 1
                setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &isPrompt, socklen_t(MemoryLayout<Int32>.size))
                var patience = timeval(tv_sec: 120, tv_usec: 0)
                setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
                if !isConnected { throw TestSupportError.noDoor("no connection") }
            }

            func close() { Foundation.close(descriptor) }

            /// Nothing more is asked; answers are still read.
            func endAsking() { _ = shutdown(descriptor, Int32(SHUT_WR)) }

            /// Whether all was taken before a second passed without a byte.
            func isTaken(_ bytes: [UInt8]) -> Bool {
                var patience = timeval(tv_sec: 1, tv_usec: 0)
                setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
                var rest = bytes[...]
                while !rest.isEmpty {
                    let count = rest.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                    guard count > 0 else { return false }
                    rest = rest.dropFirst(count)
                }
                return true
            }

            func write(_ bytes: ArraySlice<UInt8>) {
                var rest = bytes
                while !rest.isEmpty {
                    let count = rest.withUnsafeBytes {
                        send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                    }
                    guard count > 0 else { return }
                    rest = rest.dropFirst(count)
                }
            }

            /// The next answer's status and body; nil at the connection's end.
            mutating func answer() -> (status: Int, body: String)? {
                while true {
                    let text = String(decoding: read, as: UTF8.self)
                    if let end = text.range(of: "\r\n\r\n") {
                        let head = text[..<end.lowerBound].lowercased()
                        let length = head.split(separator: "\r\n").first { $0.hasPrefix("content-length:") }
                            .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) }
                        let start = text[..<end.upperBound].utf8.count
                        if let length, read.count >= start + length {
                            let body = String(decoding: read[start..<start + length], as: UTF8.self)
                            read.removeFirst(start + length)
                            return (Int(head.split(separator: " ")[1]) ?? 0, body)
                        }
                    }
                    var buffer = [UInt8](repeating: 0, count: 64 << 10)
                    let count = recv(descriptor, &buffer, buffer.count, 0)
                    guard count > 0 else { return nil }
                    read += buffer[..<count]
                }
            }
        }

        /// Serves while the body runs. Answers say who gives them, and what they were asked.
        /// The body has a thread of its own: it blocks, and Swift's own threads are the server's.
        private func serving(
            _ quick: @escaping @Sendable ([UInt8]) -> WebResponse? = QuickAnswersTests.quick,
            _ body: @escaping @Sendable (Int) throws -> Void
        ) async throws {
            let server = HTTPServer(host: "127.0.0.1", port: 0) { _ in 400 }
            for path in ["/quick", "/other"] {
                server.route("POST", path) { request in
                    if path == "/other" { try await Task.sleep(for: .milliseconds(2)) }
                    return .text(
                        "route \(request.body.count) " + String(decoding: request.body.prefix(8), as: UTF8.self))
                }
            }
            server.answerQuickly("POST", "/quick", quick)
            // Long answers, whoever gives them.
            let long = String(repeating: "y", count: 60_000)
            server.route("POST", "/long") { _ in .text(long) }
            server.answerQuickly("POST", "/long") { body in
                _ = quick(body)
                return .text(long)
            }
            server.refuseTheRest()
            try await withThrowingTaskGroup(of: Void.self) { group in
                let port = Monitor<Int?>(nil)
                group.addTask { try await server.run { given in port.update { $0 = given } } }
                var given: Int?
                for _ in 0..<500 where given == nil {
                    given = port.withLock { $0 }
                    try await Task.sleep(for: .milliseconds(10))
                }
                let found = try #require(given)
                try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
                    Thread.detachNewThread { done.resume(with: Result { try body(found) }) }
                }
                group.cancelAll()
            }
        }

        private static func quick(_ body: [UInt8]) -> WebResponse? {
            guard body.first != UInt8(ascii: "p") else { return nil }
            return .text("quick \(body.count) " + String(decoding: body.prefix(8), as: UTF8.self))
        }

        /// Requests of all kinds: small ones, ones that the quick answer passes on, large and chunked ones, other paths.
        private static func exchange(_ number: Int, mayChunk: Bool, _ random: inout SeededRandom) -> Exchange {
            let kind = Int.random(in: 0..<8, using: &random)
            let size = [12, 12, 300, 12, 12, 70_000, 140_000, 12][kind]
            let mark = (kind == 3 ? "p" : "q") + String(format: "%07d", number)
            let body = [UInt8](mark.utf8) + Array(repeating: UInt8(ascii: "x"), count: size - 8)
            let path = kind == 4 ? "/other" : kind == 7 ? "/quick?a=b" : "/quick"
            var text = "POST \(path) HTTP/1.1\r\nHost: h\r\n"
            var bytes: [UInt8]
            let isChunked = mayChunk && (kind == 2 || kind == 6)
            if isChunked {
                text += "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
                bytes = [UInt8](text.utf8)
                for start in stride(from: 0, to: body.count, by: 9000) {
                    let part = body[start..<min(start + 9000, body.count)]
                    bytes += [UInt8]("\(String(part.count, radix: 16))\r\n".utf8) + part + [13, 10]
                }
                bytes += [UInt8]("0\r\n\r\n".utf8)
            } else {
                bytes = [UInt8]((text + "Content-Length: \(body.count)\r\n\r\n").utf8) + body
            }
            return Exchange(
                bytes: bytes, answer: "\(size) \(mark)", isQuick: [0, 1, 2].contains(kind), isChunked: isChunked)
        }

        @Test func answersKeepTheOrderOfTheirRequests() async throws {
            try await serving { port in
                for seed in 0..<6 {
                    var random = SeededRandom(seed: UInt64(seed))
                    let exchanges = (0..<60).map { Self.exchange($0, mayChunk: seed % 3 == 2 && $0 > 30, &random) }
                    // One after the other: who answers is certain.
                    var connection = try Connection(port: port)
                    var isOver = false
                    for exchange in exchanges {
                        isOver = isOver || exchange.isChunked
                        let cut = Int.random(in: 0...exchange.bytes.count, using: &random)
                        connection.write(exchange.bytes[..<cut])
                        if seed % 2 == 0 { Thread.sleep(forTimeInterval: 0.001) }
                        connection.write(exchange.bytes[cut...])
                        let answer = connection.answer()
                        let expected = (exchange.isQuick && !isOver ? "quick " : "route ") + exchange.answer
                        #expect(
                            answer?.status == 200 && answer?.body == expected,
                            "\(expected): \(String(describing: answer))")
                    }
                    connection.close()
                    // All at once, in pieces of any size: whoever answers, answers come in order.
                    connection = try Connection(port: port)
                    let all = exchanges.flatMap(\.bytes)
                    let writing = connection
                    let pieces = BlockingThread(name: "pieces") {
                        var random = SeededRandom(seed: UInt64(seed) + 99)
                        var at = 0
                        while at < all.count {
                            let end = min(all.count, at + Int.random(in: 1...20_000, using: &random))
                            writing.write(all[at..<end])
                            at = end
                        }
                    }
                    for exchange in exchanges {
                        let body = connection.answer()?.body ?? "nothing"
                        #expect(body.hasSuffix(" " + exchange.answer), "seed \(seed): \(exchange.answer), not \(body)")
                    }
                    pieces.join()
                    // The last word: the connection ends behind its answer.
                    let last = "POST /quick HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1\r\n\r\nq"
                    connection.write(ArraySlice(last.utf8))
                    #expect(connection.answer()?.body == "route 1 q" && connection.answer() == nil)
                    connection.close()
                }
            }
        }

        /// Who asks no more is answered all the same, and then the connection ends.
        @Test func whoAsksNoMoreIsAnswered() async throws {
            try await serving { port in
                for seed in 0..<20 {
                    var random = SeededRandom(seed: UInt64(seed) + 500)
                    let exchanges = (0..<Int.random(in: 1...12, using: &random)).map {
                        Self.exchange($0, mayChunk: seed % 2 == 0, &random)
                    }
                    var connection = try Connection(port: port)
                    connection.write(exchanges.flatMap(\.bytes)[...])
                    connection.endAsking()
                    for exchange in exchanges {
                        let body = connection.answer()?.body ?? "nothing"
                        #expect(body.hasSuffix(" " + exchange.answer), "seed \(seed): \(exchange.answer), not \(body)")
                    }
                    #expect(connection.answer() == nil)
                    connection.close()
                }
            }
        }

        /// Who does not read is not answered on and on.
        @Test func whoDoesNotReadWaits() async throws {
            let given = Monitor(0)
            try await serving({ _ in
                given.withLock { $0 += 1 }
                return nil
            }) { port in
                let connection = try Connection(port: port)
                let body = [UInt8](repeating: UInt8(ascii: "x"), count: 16_000)
                let request = [UInt8]("POST /long HTTP/1.1\r\nHost: h\r\nContent-Length: 16000\r\n\r\n".utf8) + body
                var sent = 0
                while sent < 5000, connection.isTaken(request) { sent += 1 }
                let answered = given.withLock { $0 }
                #expect(sent < 5000 && answered > 0 && answered < 500, "\(sent) sent, \(answered) answered")
                connection.close()
            }
        }
    }
}
