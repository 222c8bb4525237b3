from carvana_unet.cli import predict

if __name__ == '__main__': predict()
