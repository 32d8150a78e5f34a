import Base
import Foundation
import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Answers requests where their bytes are read, on the thread of the connection's event loop, before they are taken for HTTP by
/// anybody else: no task, no queue, no other thread and no list of headers takes part. Every other request goes on to the routes
/// byte by byte as it came, and while they are at one, all that follow do as well: answers go out in the order of their
/// requests. One a connection, the first of its handlers; it lives on the connection's event loop.
final class QuickAnswers: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer
    /// Of a request's body; nil where the route must answer.
    typealias Answer = @Sendable ([UInt8]) -> WebResponse?

    /// Bytes of a body that is answered here.
    static let bodyLimit = 64 << 10
    /// Bytes of a request's head that is looked at.
    static let headLimit = 8 << 10

    /// By the first bytes of a request, up to its first header.
    private let answers: [(line: [UInt8], answer: Answer)]
    /// The beginning of a request whose rest has not come.
    private var held = ByteBuffer()
    /// Bytes of a request's body that are on their way to the routes.
    private var passing = 0
    /// Requests that the routes have not answered yet.
    private var underWay = 0
    /// Where a request ends is for the routes to know: everything is theirs from there on.
    private var isOver = false
    private var isWritten = false
    private var output = ByteBuffer()
    private var date = HTTPDate()

    init(_ answers: [String: [String: Answer]]) {
        self.answers = answers.flatMap { path, methods in
            methods.map { ([UInt8]("\($0.key) \(path) HTTP/1.1\r\n".utf8), $0.value) }
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isOver else { return context.fireChannelRead(data) }
        var buffer = unwrapInboundIn(data)
        if held.readableBytes > 0 {
            held.writeBuffer(&buffer)
            buffer = held
            held = ByteBuffer()
        }
        while buffer.readableBytes > 0, !isOver {
            if passing > 0 {
                let count = min(passing, buffer.readableBytes)
                passing -= count
                pass(count, of: &buffer, context)
            } else if !take(&buffer, context) {
                held = buffer
                return
            }
        }
        if buffer.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(buffer)) }
    }

    /// One request, or what there is of it. False where more must come first.
    private func take(_ buffer: inout ByteBuffer, _ context: ChannelHandlerContext) -> Bool {
        switch buffer.withUnsafeReadableBytes({ RequestExtent($0, limit: Self.headLimit) }) {
        case .unfinished: return false
        case .unknown:
            isOver = true
            return true
        case .known(let head, let body):
            // Who does not read the answers is not asked on: the routes' way makes him wait.
            if underWay == 0, body <= Self.bodyLimit, context.channel.isWritable, let answer = answer(to: buffer) {
                guard buffer.readableBytes >= head + body else { return false }
                let bytes = buffer.withUnsafeReadableBytes { Array($0[head..<head + body]) }
                if let given = answer(bytes), given.status == 200, given.headers.isEmpty,
                    case .bytes(let content) = given.body
                {
                    buffer.moveReaderIndex(forwardBy: head + body)
                    write(given.contentType, content, context)
                    return true
                }
            }
            underWay += 1
            passing = head + body
            return true
        }
    }

    private func answer(to buffer: ByteBuffer) -> Answer? {
        buffer.withUnsafeReadableBytes { raw in
            for (line, answer) in answers where line.count <= raw.count {
                let isSame = line.withUnsafeBytes { wanted in
                    guard let wanted = wanted.baseAddress, let start = raw.baseAddress else { return false }
                    return memcmp(wanted, start, line.count) == 0
                }
                if isSame { return answer }
            }
            return nil
        }
    }

    private func pass(_ count: Int, of buffer: inout ByteBuffer, _ context: ChannelHandlerContext) {
        guard let part = buffer.readSlice(length: count) else { return }
        context.fireChannelRead(wrapInboundOut(part))
    }

    private func write(_ contentType: String, _ content: [UInt8], _ context: ChannelHandlerContext) {
        output.clear(minimumCapacity: content.count + 256)
        output.writeString("HTTP/1.1 200 OK\r\ncontent-type: ")
        output.writeString(contentType)
        output.writeString("\r\ncontent-length: ")
        output.writeString(String(content.count))
        output.writeString("\r\ndate: ")
        output.writeString(date.now())
        output.writeString("\r\n\r\n")
        output.writeBytes(content)
        context.write(wrapOutboundOut(output), promise: nil)
        isWritten = true
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if isWritten {
            isWritten = false
            context.flush()
        }
        context.fireChannelReadComplete()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event as? ChannelEvent == .inputClosed { giveUp(context) }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        giveUp(context)
        context.fireChannelInactive()
    }

    /// Nothing more comes: what is not whole is for the routes to refuse.
    private func giveUp(_ context: ChannelHandlerContext) {
        isOver = true
        guard held.readableBytes > 0 else { return }
        context.fireChannelRead(wrapInboundOut(held))
        held = ByteBuffer()
    }

    /// The routes have answered a request.
    func routeAnswered() { underWay = max(0, underWay - 1) }
}

/// Puts quick answers before everything else on a connection, and tells them when the routes have answered.
final class QuickAnswerDoor: ChannelOutboundHandler, RemovableChannelHandler {
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private let quick: QuickAnswers

    init(_ answers: [String: [String: QuickAnswers.Answer]]) { quick = QuickAnswers(answers) }

    func handlerAdded(context: ChannelHandlerContext) {
        // Without them the routes answer everything.
        try? context.pipeline.syncOperations.addHandler(quick, position: .first)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = unwrapOutboundIn(data) { quick.routeAnswered() }
        context.write(data, promise: promise)
    }
}

/// The moment of an answer as RFC 9110 (5.6.7) writes it; worked out once a second.
struct HTTPDate {
    private var second = time_t(0)
    private var text = ""

    mutating func now() -> String {
        var now = time(nil)
        guard now != second else { return text }
        var parts = tm()
        var written = [CChar](repeating: 0, count: 40)
        gmtime_r(&now, &parts)
        let count = strftime(&written, written.count, "%a, %d %b %Y %H:%M:%S GMT", &parts)
        (second, text) = (now, String(decoding: written[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self))
        return text
    }
}
