"""Answers one client as a server of PostgreSQL's would. usage: listener.py PORT"""
import socket
import sys

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
client = listener.accept()[0]
client.recv(99)
ready = b"Z\0\0\0\x05I"
client.send(b"R\0\0\0\x08\0\0\0\0" + ready)
client.recv(99)
client.send(b"C\0\0\0\x0dSELECT 0\0" + ready)
client.recv(99)
print("answered")
