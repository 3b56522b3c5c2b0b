"""The orders with their model from `models/Order.rst`; `durably generate` writes `models/order.py`.

cd examples/orders/from_file && durably generate
uvicorn examples.orders.from_file.app:app --port 3000
"""
